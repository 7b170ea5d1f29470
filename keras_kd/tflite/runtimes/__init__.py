"""LiteRT and TFLM: running files, time and memory."""
