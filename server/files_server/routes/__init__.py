"""Thin handlers: from a request to a call and back to an answer."""
