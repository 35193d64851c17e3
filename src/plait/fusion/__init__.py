"""Several modalities into one: one file per idea, all with the same call."""
