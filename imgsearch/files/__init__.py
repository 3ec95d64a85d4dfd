"""Finding and opening files, on disk or at URLs."""
