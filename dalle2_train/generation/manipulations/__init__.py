"""Manipulations of a picture through its latents (z_i, x_T), §3 of unCLIP: each takes pictures and gives pictures."""
