"""What is written in a file."""
