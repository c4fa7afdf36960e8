"""Runs that several test files of the page read."""

from tests.report.html.pages import compared_run, labelled_run, study_run, unlabelled_run

__all__ = ["compared_run", "labelled_run", "study_run", "unlabelled_run"]
