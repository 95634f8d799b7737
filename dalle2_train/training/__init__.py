"""Glue between a network, its loss, the data's order and Lightning's loop."""
