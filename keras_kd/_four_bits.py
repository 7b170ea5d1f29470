"""Operators without kernels for 4-bit weights."""

# TFLM and LiteRT's reference kernels refuse the first, TensorFlow's converter and
# ai-edge-quantizer the second. Their weights are few and have 8 bits.
WITHOUT_4_BITS = frozenset({"DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
