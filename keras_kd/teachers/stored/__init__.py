"""A teacher's outputs in a file, written once and read in every epoch."""
