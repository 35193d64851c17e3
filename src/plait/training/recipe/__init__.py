"""Recipes: their fields, checks and overrides."""
