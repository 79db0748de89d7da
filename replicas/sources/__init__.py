"""Readers of image bytes, one module per kind of URL."""
