"""Whether a file computes what the student computed."""
