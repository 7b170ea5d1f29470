"""What runs a file here: LiteRT, its messages, its time."""
