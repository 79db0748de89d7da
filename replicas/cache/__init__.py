"""One host's directory: its complete files, the files that grow, and room for both."""

from .directory import PINNED, VERIFIED, Cache, Copy, Entry

__all__ = ["PINNED", "VERIFIED", "Cache", "Copy", "Entry"]
