"""Which cache folder belongs to a mount: a small file in the run folder while it is mounted.

umount and status find the daemon's control socket by it, wherever -o cache_dir put it. It must
hold no secret and nothing that a crash may not lose: without a record the default is assumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from filesfs.commands.mount_table import Mounted
from filesfs.config import MountSettings, Source, default_cache_dir
from filesfs.errors import UsageError


@contextlib.contextmanager
def record(settings: MountSettings) -> Iterator[None]:
    """The record exists inside the `with`. Not being able to write it is no reason not to mount."""
    path = _path(settings.mountpoint)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"cache_dir": str(settings.cache_dir)}))
        new.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def cache_dir_of(mounted: Mounted, variables: Mapping[str, str] = os.environ) -> Path:
    """The cache folder of a mount: as recorded, else the default."""
    try:
        return Path(json.loads(_path(mounted.mountpoint).read_text())["cache_dir"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return default_cache_dir(Source.parse(mounted.source), mounted.mountpoint, variables)
    except UsageError:  # a source that some other program wrote
        return Path("/nonexistent")


def _path(mountpoint: Path) -> Path:
    name = hashlib.sha256(str(mountpoint).encode()).hexdigest()[:16]
    return _folder() / f"{name}.json"


def _folder() -> Path:
    if os.getuid() == 0:
        return Path("/run/filesfs")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or os.path.expanduser("~/.cache")) / "filesfs-mounts"
