"""`filesfs status`: what the daemons of the mounts say of themselves.

It must not change anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from filesfs import control
from filesfs.commands import mount_table
from filesfs.commands.mount_table import Mounted
from filesfs.commands.records import cache_dir_of
from filesfs.errors import UsageError

_ASK_SECONDS = 10.0


def collect(mountpoint: Path | None) -> list[dict[str, Any]]:
    """One answer for each mount, or for the one that is named. UsageError if there is none."""
    if mountpoint is None:
        return [_ask(mounted) for mounted in mount_table.filesfs_mounts()]
    mounted = mount_table.find(mountpoint)
    if mounted is None:
        raise UsageError(f"no filesfs is mounted on {mountpoint}", 1)
    return [_ask(mounted)]


def prometheus(answers: list[dict[str, Any]]) -> str:
    """The answers' numbers in Prometheus' text format, for node_exporter's textfile collector.

    `filesfs_up` is 1 for a mount that serves, 0 for one that is dead or silent.
    """
    registry = CollectorRegistry()
    labels = ("mountpoint", "source")
    up = Gauge("filesfs_up", "Whether the mount serves.", labels, registry=registry)
    gauges: dict[str, Gauge] = {}
    for answer in answers:
        values = [str(answer[label]) for label in labels]
        up.labels(*values).set(answer["state"] == "serving")
        for name, value in answer.items():
            if isinstance(value, int) and name != "pid":
                if name not in gauges:
                    what = f"As filesfs status tells: {name.replace('_', ' ')}."
                    gauges[name] = Gauge(f"filesfs_{name}", what, labels, registry=registry)
                gauges[name].labels(*values).set(value)
    return generate_latest(registry).decode()


def _ask(mounted: Mounted) -> dict[str, Any]:
    known = {"source": mounted.source, "mountpoint": str(mounted.mountpoint)}
    folder = cache_dir_of(mounted)
    try:
        answer = control.ask(folder, "status", _ASK_SECONDS)
    except (OSError, ValueError) as error:
        if mount_table.is_dead(mounted.mountpoint):
            return {**known, "state": "dead"}
        return {**known, "state": "silent", "error": _reason(error), "cache_dir": str(folder)}
    return {**known, "state": "serving", "cache_dir": str(folder), **answer}


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no control socket in its cache dir here; it may be another container's mount"
    return str(error)
