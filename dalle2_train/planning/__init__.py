"""What a recipe asks of machines, said without them."""
