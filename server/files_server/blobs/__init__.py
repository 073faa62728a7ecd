"""Content that is too large for the catalog."""
