"""The memory of a run, known before it."""
