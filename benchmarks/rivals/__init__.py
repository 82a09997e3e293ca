"""Hearth's reloading beside the other ways that people have. `make bench-rivals` prints the table of RESULTS.md.

All serve the same model with the same agent, around the same 20 files of user code.
"""
