"""Files as a disk has them: read past the page cache, names that are there after a crash, whose they are."""
