"""One host's directory: its complete files, the files that grow, and room for both."""

from .directory import Cache
from .entry import Copy, Entry

__all__ = ["Cache", "Copy", "Entry"]
