"""Maintenance: verify, repair, and find duplicates."""
