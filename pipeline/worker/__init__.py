"""The same stages in a process that may die, and its supervisor."""
