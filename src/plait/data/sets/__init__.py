"""One file per built-in data set; `plait.data.catalog` lists them."""
