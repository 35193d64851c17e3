"""Vector stores and the filters that they understand."""
