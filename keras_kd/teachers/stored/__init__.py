"""A teacher's outputs in a file: written once, read as often as there are epochs."""
