"""Embedding: find, decode and embed images, and return NumPy arrays and dataclasses."""
