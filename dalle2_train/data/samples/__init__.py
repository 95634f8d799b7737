"""One sample: read, decoded, and made into what a visit sees."""
