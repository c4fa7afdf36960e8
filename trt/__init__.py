"""Keras and ONNX models as TensorRT engines; knows no files of images and no rows."""
