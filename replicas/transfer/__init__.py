"""Bytes on their way: from which source, by one writer, to many readers."""
