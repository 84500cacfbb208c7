"""One module per file of vectors; each has a `build()` that returns what the file holds."""
