"""Finds what is wrong with a set, without training on it."""
