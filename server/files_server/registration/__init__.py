"""Locations that exist already and are shown as buckets: the rows, their files, safe walking."""
