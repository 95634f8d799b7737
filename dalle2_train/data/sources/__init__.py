"""Where shards come from: emoji, a folder of pictures. Each source yields records, `ingest` writes them."""
