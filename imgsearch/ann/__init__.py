"""Approximate nearest neighbours: Faiss indexes, exact search, and the recall they keep."""
