"""Querying, the read side: search a collection as of one commit."""
