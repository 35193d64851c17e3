"""One file per built-in data set; `plait.data.open.catalog` lists them."""
