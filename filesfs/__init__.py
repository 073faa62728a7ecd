"""filesfs: a file system over the Files API."""

__version__ = "0.1.0"
