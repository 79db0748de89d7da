"""Copies ahead of need: who wishes for them, what this host is asked for, and its fetching."""
