"""Open upload sessions are counted without looking at the completed ones."""

from __future__ import annotations

from alembic import op

from files_server.catalog import schema

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """A fresh catalog has it from the first step."""
    for index in schema.sessions.indexes:
        index.create(op.get_bind(), checkfirst=True)
