"""The endless stream of batches: its order, who reads and decodes, mixtures, and resuming."""
