"""The content of metrics.json as text: report.md and the table of the console."""
