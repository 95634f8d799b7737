"""What lies where: tars and their manifest, an index for each, and reading samples by their places."""
