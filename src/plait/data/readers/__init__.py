"""One file per source format: each yields `Row`s and `BadRow`s, which `assemble` makes samples."""
