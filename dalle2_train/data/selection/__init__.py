"""Which samples are trained on, and the account of all others."""
