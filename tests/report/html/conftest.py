"""Runs that several test files of the page read."""

from tests.report.html.pages import labelled_run, unlabelled_run

__all__ = ["labelled_run", "unlabelled_run"]
