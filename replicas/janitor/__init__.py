"""Keeps one host true: one pass over it, disk and rows in agreement, files read again."""
