"""The bundle's graph in FP16: types, ranges, emulation."""

CONVERTER_VERSION = 1
"""Increase it with every change after which the same bundle gives another graph: cached engines are recognized by it.
tests/trt/graph/test_converter_version.py fails where that was forgotten."""
