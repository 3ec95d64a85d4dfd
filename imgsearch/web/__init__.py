"""The page and the REST API: parse, call the library, answer. Nothing else."""
