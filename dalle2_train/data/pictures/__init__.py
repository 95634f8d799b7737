"""Bytes to pictures."""
