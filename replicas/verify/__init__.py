"""Judges copies: what is due, one look, and the verdict it gives."""
