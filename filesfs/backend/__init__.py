"""Talking to the Files API: the Protocol that the rest consumes, and its HTTP implementation."""
