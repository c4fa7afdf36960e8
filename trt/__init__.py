"""A bundle's graph as a TensorRT engine; knows no image files and no rows."""
