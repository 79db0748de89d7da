"""What one host does with its own copies."""
