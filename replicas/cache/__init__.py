"""One host's directory: its complete files, the files that grow, and room for both."""

from .entry import Copy, Entry
from .host_cache import Cache

__all__ = ["Cache", "Copy", "Entry"]
