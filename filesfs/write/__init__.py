"""The write path: dirty bytes, their upload, and the journal that outlives a crash.

Knows neither FUSE nor HTTP.
"""
