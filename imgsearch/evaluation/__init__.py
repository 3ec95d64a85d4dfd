"""Evaluation: the quality of answers, by labels and against exact search."""
