"""Ours and the peers in turn, one file a question."""
