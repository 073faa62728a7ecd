"""/docs, a page without external assets."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

router = APIRouter()


def install(app: FastAPI) -> None:
    """Put the description of the API into `app`."""
