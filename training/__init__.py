"""Training and export of models; the only folder that imports TensorFlow and Keras."""
