"""Objects in Swift."""
