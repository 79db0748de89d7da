"""Holds what places really hold against the catalogue."""
