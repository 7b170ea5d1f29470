"""What Android's libraries want to find in a file."""
