"""The only home of TensorFlow: data, networks, fit, export."""
