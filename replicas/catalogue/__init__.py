"""Glance's own rows: its tables, which images are meant, and how its location URLs are encrypted."""
