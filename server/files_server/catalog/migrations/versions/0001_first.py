"""The first schema. As it was then: later changes of schema.py come as steps of their own."""

from __future__ import annotations

from alembic import op

from files_server.catalog import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    schema.metadata.create_all(op.get_bind())
