"""The content of a `.tflite` file."""
