"""The whole directory of a host: its names, its complete files and its partial ones."""

from pathlib import Path

from .complete_files import CompleteFiles
from .directory import Directory
from .partial_files import PartialFiles


class Cache(Directory):
    """What one host keeps."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.complete = CompleteFiles(self)
        self.partials = PartialFiles(self)
