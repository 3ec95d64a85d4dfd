"""Indexing, the write side: what is scanned, embedded, committed and folded into the index."""
