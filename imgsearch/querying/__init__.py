"""Querying, the read side: a collection as of one commit, searched."""
