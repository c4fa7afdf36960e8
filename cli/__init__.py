"""The command line: one file per command, text in and text out, no logic."""
