"""Engines, short transactions, and what databases say each in their own way."""
