"""Judges copies: what is due, one verification, and the verdict it gives."""
