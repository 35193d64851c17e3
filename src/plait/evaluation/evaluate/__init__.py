"""Each kind of model, evaluated on a data set."""
