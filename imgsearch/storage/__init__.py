"""Storage: the files of a collection, and the catalog that says which of them are in use."""
