"""Evaluation: how good the answers are, by labels and against exact search."""
