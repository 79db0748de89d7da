"""Makes damaged copies good from intact ones."""
