"""Clustering: weights that share few values while the student trains."""
