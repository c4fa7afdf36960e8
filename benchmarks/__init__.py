"""Measurements, each within one run; results are committed under results/, named by their conditions."""
