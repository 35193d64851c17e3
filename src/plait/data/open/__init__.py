"""From a path to a data set: the format told by the content."""
