"""The side of who downloads: the document, which copy first, and the download."""
