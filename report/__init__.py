"""A finished run to metrics and pages."""
