"""Where shards come from: emoji, a folder of pictures, a list of URLs. `ingest` makes shards of any of them."""
