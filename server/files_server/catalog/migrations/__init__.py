"""Alembic's steps from one schema to the next, and how to run them without an ini file."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from files_server.catalog.database import CatalogError


def upgrade(path: Path, found: str) -> None:
    """Upgrade the SQLite file from revision `found` ("": empty). Raises CatalogError if newer."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if found and found not in known:
        raise CatalogError(
            f"{path} was written by a newer server (schema {found}): start that one instead"
        )
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
