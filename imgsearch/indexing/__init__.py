"""Indexing, the write side: scan, embed, commit, and fold into the index."""
