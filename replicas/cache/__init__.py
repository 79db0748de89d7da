"""One host's directory: its complete files, its partial files, and room for both."""

from .cached_file import CachedFile, OpenFile
from .host_cache import Cache

__all__ = ["Cache", "CachedFile", "OpenFile"]
