"""Programs that chain the library's steps for a purpose; each reads from top to bottom."""
