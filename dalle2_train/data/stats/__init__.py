"""What a set is like, in numbers and as a picture."""
