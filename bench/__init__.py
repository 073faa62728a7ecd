"""Measurements of this file system and its peers; `make bench`."""
