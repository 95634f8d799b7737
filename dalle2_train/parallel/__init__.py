"""One network over many ranks: mesh, sharding, precision, clipping and averaging. Knows neither Ray nor Lightning."""
