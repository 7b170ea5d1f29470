"""Quantization-aware training: the student learns with the rounding errors of few bits."""
