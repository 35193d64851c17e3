"""The report of a run, with its pictures and words."""
