"""Backends: a collection or its computation beyond one directory and one machine."""
