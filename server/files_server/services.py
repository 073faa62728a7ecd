"""Everything that a request needs, opened in one place, in order, and closed in the reverse.

It must not answer requests. The data folder belongs to one server at a time: it is locked.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from files_server.blobs.local import LocalBlobs
from files_server.blobs.removing import Removals
from files_server.catalog import sessions
from files_server.catalog.database import CatalogError
from files_server.catalog.schema import FORMAT_VERSION
from files_server.catalog.store import Catalog
from files_server.changes import Changes
from files_server.content import ContentAnswers
from files_server.contents import Contents
from files_server.entries import Entries
from files_server.grace import Marker
from files_server.leases import Leases
from files_server.registration.leftovers import Leftovers
from files_server.registration.receiving import LocatedPlaces
from files_server.registration.table import Registrations
from files_server.settings import Settings
from files_server.uploads import Uploads

_SWEEP_SECONDS = 60.0
_THREADS = 8  # for disk work
_LOCATIONS_SECONDS = 5.0  # a location on a dead network disk does not keep the server from starting
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    catalog: Catalog
    blobs: LocalBlobs
    uploads: Uploads
    registrations: Registrations
    changes: Changes
    leases: Leases
    content: ContentAnswers
    contents: Contents
    entries: Entries
    pool: ThreadPoolExecutor


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Services]:
    """The services of one running server. Raises CatalogError or OSError for a bad data folder."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(settings.data_dir)
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="disk")
    try:
        _check_format(settings.data_dir / "format")
        async with _opened(settings, pool) as services:
            yield services
    finally:
        pool.shutdown()
        os.close(lock)


@asynccontextmanager
async def _opened(settings: Settings, pool: ThreadPoolExecutor) -> AsyncIterator[Services]:
    blobs = LocalBlobs(settings.data_dir)
    blobs.prepare()
    marker = Marker(settings.data_dir / "leases", settings.lease_seconds, pool)
    leases = Leases(settings.lease_seconds, marker)
    leases.begin()
    changes = Changes(leases)
    path = settings.data_dir / "catalog.sqlite"
    catalog = Catalog(path, Removals(blobs), changes.publish, leases)
    blobs.sweep(catalog.named_blobs(), sessions.open_sessions(catalog.reader))
    registrations = Registrations(settings.file_roots)
    registrations.load(catalog.reader)
    leftovers = Leftovers(settings.data_dir / "staged")
    removing = asyncio.create_task(asyncio.to_thread(leftovers.sweep, registrations))
    await asyncio.wait({removing}, timeout=_LOCATIONS_SECONDS)
    places = LocatedPlaces(registrations, leftovers)
    uploads = Uploads(settings, catalog, blobs, places, pool)
    services = Services(
        settings, catalog, blobs, uploads, registrations, changes, leases,
        ContentAnswers(catalog, blobs), Contents(catalog, blobs), Entries(settings.base_url), pool,
    )  # fmt: skip
    sweeping = asyncio.create_task(_sweep(services))
    try:
        yield services
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        uploads.close()
        await catalog.close()
        leases.close()


async def _sweep(services: Services) -> None:
    """Collect what expired, now and then; what fails, as on a full disk, is tried again later."""
    catalog = services.catalog
    while True:
        for collect in (services.uploads.collect, catalog.prune, catalog.shrink):
            try:
                await collect()
            except Exception as error:
                _log.error("collecting what expired failed: %s", error)
        await asyncio.sleep(_SWEEP_SECONDS)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CatalogError(
            f"the data folder {folder} is in use by another server: stop it or choose another one"
        ) from None
    return descriptor


def _check_format(path: Path) -> None:
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{FORMAT_VERSION}\n", encoding="ascii")
        shutil.move(fresh, path)
    text = path.read_text(encoding="ascii").strip()
    if not text.isdigit() or int(text) > FORMAT_VERSION:
        raise CatalogError(
            f"{path} says format {text!r}; this server knows {FORMAT_VERSION} and older ones:"
            " start a newer one"
        )
