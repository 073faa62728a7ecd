"""What can be undeleted, and where a registered location's file system was mounted."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String, inspect

from files_server.catalog import schema

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A fresh catalog has it all: the first step makes the tables as schema.py has them by now."""
    bind = op.get_bind()
    columns = {column["name"] for column in inspect(bind).get_columns("registrations")}
    if "mountpoint" not in columns:
        op.add_column("registrations", Column("mountpoint", String))
    schema.deleted.create(bind, checkfirst=True)
