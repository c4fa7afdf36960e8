"""The bundle's graph in FP16: types, ranges, emulation."""
