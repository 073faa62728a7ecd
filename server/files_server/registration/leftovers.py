"""Notes, in the data folder, of what lies hidden in registered locations while a commit runs; and
at the next start, the removal of what a kill left there.

It must not search: a location may hold millions of files, and hidden ones of another server. A note
is a symbolic link, which nobody follows: its text comes to the disk with its name, and ahead of the
hidden file where both are on one disk, without a sync that each upload would wait for.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from files_server.errors import ApiError
from files_server.registration import locations
from files_server.registration.locations import TEMPORARY, Location
from files_server.registration.table import Registrations

_OURS = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{24}\Z")
_log = logging.getLogger(__name__)


class Leftovers:
    """Owns the folder of notes, each by the name of its hidden file. All methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began_ns = time.time_ns()
        folder.mkdir(mode=0o700, exist_ok=True)

    def note(self, name: str, location: Location, directory: str) -> None:
        """A file `name` is about to be in a directory (a key) of the location.

        Without a note, as on a disk that knows no links, only what a kill leaves will stay.
        """
        with suppress(OSError):
            self.forget(name)
            os.symlink(location.path / locations.path_of(directory), self._folder / name)

    def forget(self, name: str) -> None:
        """It is not there any more."""
        (self._folder / name).unlink(missing_ok=True)

    def sweep(self, registrations: Registrations) -> None:
        """At a start: remove what is still there. A location that is away, or not registered for
        writing any more, keeps its note."""
        writable = list(_writable(registrations))
        for note in sorted(self._folder.iterdir()):
            try:
                folder = Path(os.readlink(note))
                if any(self._remove(note.name, folder, location) for location in writable):
                    note.unlink()
            except (ApiError, OSError) as error:
                _log.warning("what a killed upload left in a location may stay: %s", error)

    def _remove(self, name: str, folder: Path, location: Location) -> bool:
        """Whether there is nothing of it in this location now."""
        if not folder.is_relative_to(location.path) or not _OURS.match(name):
            return False
        inside = "/".join(folder.relative_to(location.path).parts)
        try:
            parent = locations.walk_to(location, inside)
        except FileNotFoundError:
            return True
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            # Of a session that went on since, it would be at work.
            if not stat.S_ISREG(status.st_mode) or status.st_ctime_ns >= self._began_ns:
                return False
            os.unlink(name, dir_fd=parent)
            _log.info("removed %s/%s, which a killed upload left", folder, name)
        except FileNotFoundError:
            pass
        finally:
            os.close(parent)
        return True


def _writable(registrations: Registrations) -> Iterator[Location]:
    for alias in registrations.aliases():
        found = registrations.get(alias)
        if found and not found.read_only:
            yield found.location
