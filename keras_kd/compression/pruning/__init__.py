"""Pruning: weights that become zero while the student trains."""
