"""Samples, data sets of them, and how they are split."""
