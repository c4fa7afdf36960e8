"""The Keras networks and the weights they start from."""
