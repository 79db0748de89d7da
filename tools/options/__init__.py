"""Options that commands share, and the values people write."""
