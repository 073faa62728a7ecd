"""A tree as people have it: Python's own files, and documents whose names are difficult.

It must not know of mounts or servers.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

DOCUMENTS = 60
_LONG_NAME = "é" * 127 + "x"  # 255 bytes


def count(folder: Path) -> int:
    return sum(len(names) + len(files) for _, names, files in os.walk(folder))


def build_tree(tree: Path, wanted: int) -> None:
    """At least `wanted` entries: Python's own trees, and what documents are called."""
    documents = tree / "Größe und Maß" / "Briefe & Akten"
    documents.mkdir(parents=True)
    for number in range(DOCUMENTS):
        (documents / f"Brief Nr. {number} naïve #1+~.txt").write_text(f"straße {number}\n")
    (documents / _LONG_NAME).write_text("long")
    (tree / "empty dir").mkdir()
    (tree / "link").symlink_to("Größe und Maß")
    (tree / "broken").symlink_to("/nonexistent")
    missing, round_ = wanted - count(tree), 0
    while missing > 0:
        for place in ("purelib", "stdlib"):
            missing -= copy_some(
                Path(sysconfig.get_path(place)), tree / f"{place}{round_}", missing
            )
        round_ += 1


def copy_some(source: Path, target: Path, most: int) -> int:
    """Copy regular files until there are `most`; how many it copied."""
    copied = 0
    for folder, _, files in os.walk(source):
        for name in sorted(files):
            if copied >= most:
                return copied
            path = Path(folder) / name
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
            copied += 1
    return copied
