"""An index on disk and its rows."""
