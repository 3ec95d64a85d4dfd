"""Approximate nearest neighbours: Faiss indexes, exact search, and the recall that is kept."""
