"""The first step: the tables as schema.py has them. An older catalog gets what came later by a step
of its own, which finds it made already in a catalog that begins here."""

from __future__ import annotations

from alembic import op

from files_server.catalog import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    schema.metadata.create_all(op.get_bind())
