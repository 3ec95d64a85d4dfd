"""Embedding: find, decode and embed images. NumPy arrays and dataclasses come out."""
