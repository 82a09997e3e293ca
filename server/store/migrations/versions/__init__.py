"""One script a format, named by its number."""
