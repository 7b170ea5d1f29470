"""Comparison of a file with its student."""
