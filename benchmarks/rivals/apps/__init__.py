"""The rivals' own applications. Each is copied beside the folder `tools` that it serves, and run there as app.py."""
