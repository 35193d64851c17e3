"""Requests that wait, and what computes next."""
