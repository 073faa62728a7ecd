"""Versions whose blocks are not in order, and uploads that share a version's blob."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, LargeBinary, inspect

revision = "0004"
down_revision = "0003"

_NEW = (("versions", "blocks"), ("sessions", "blocks"), ("sessions", "crc32c"))


def upgrade() -> None:
    """A fresh catalog has them from the first step."""
    for table, name in _NEW:
        if name not in {column["name"] for column in inspect(op.get_bind()).get_columns(table)}:
            op.add_column(table, Column(name, LargeBinary))
