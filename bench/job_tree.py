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


def build_tree(tree: Path, files: int, size: int) -> None:
    """At least so many entries and bytes: Python's own trees, and what documents are called."""
    documents = tree / "Größe und Maß" / "Briefe & Akten"
    documents.mkdir(parents=True)
    for number in range(DOCUMENTS):
        (documents / f"Brief Nr. {number} naïve #1+~.txt").write_text(f"straße {number}\n")
    (documents / _LONG_NAME).write_text("long")
    (tree / "empty dir").mkdir()
    (tree / "link").symlink_to("Größe und Maß")
    (tree / "broken").symlink_to("/nonexistent")
    files, round_ = files - count(tree), 0
    while files > 0 or size > 0:
        for place in ("purelib", "stdlib"):
            source, target = Path(sysconfig.get_path(place)), tree / f"{place}{round_}"
            copied, taken = copy_some(source, target, files, size)
            files, size = files - copied, size - taken
        round_ += 1


def copy_some(source: Path, target: Path, files: int, size: int) -> tuple[int, int]:
    """Copy regular files until there are so many and so many bytes; how many it copied."""
    copied = taken = 0
    for folder, _, names in os.walk(source):
        for name in sorted(names):
            if copied >= files and taken >= size:
                return copied, taken
            path = Path(folder) / name
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
            copied, taken = copied + 1, taken + path.stat().st_size
    return copied, taken
