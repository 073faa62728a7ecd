"""Holds the arrows of the architecture: who may import whom, read from the source.

    cli -> daemon -> fuse -> filesystem -> {state | read | write} -> backend -> leaves
    serve -> app -> routes -> {uploads|registration|changes|content} -> {catalog|blobs} -> leaves

A module of the top level that is not listed here is a leaf: it imports leaves and nothing else.
"""

from __future__ import annotations

import pytest

from tests.architecture.source import SOURCES, Module, functions, modules

MOST_LINES = 400  # a file has fewer
MOST_LINES_OF_A_FUNCTION = 50  # and so has a function

# Rooms by rank: an import goes to a lower rank or stays in its room. Equal ranks are siblings.
RANKS = {
    "filesfs": {
        "cli": 7,
        "__main__": 7,
        "commands": 6,
        "daemon": 5,
        "config": 4,
        "fuse": 4,
        "filesystem": 3,
        "state": 2,
        "read": 2,
        "write": 2,
        "backend": 1,
    },
    "files_server": {
        "cli": 9,
        "__main__": 9,
        "serve": 8,
        "app": 7,
        "edge": 7,
        "routes": 6,
        "services": 5,  # opens all of what follows
        "uploads": 4,
        "registration": 4,
        "changes": 4,
        "content": 4,
        "contents": 4,
        "leases": 3,  # the part of changes that waits for who was promised to hear of them
        "repeats": 3,  # the part of uploads for what comes again
        "room": 3,  # the part of uploads that looks at the disk
        "borrowing": 3,  # the part of uploads that takes bytes of the version they start from
        "backup": 2,
        "fsck": 2,
        "entries": 2,  # bodies of what the catalog found
        "receiving": 2,  # the part of uploads that takes a body in
        "parts": 2,
        "places": 2,
        "catalog": 1,
        "blobs": 1,
    },
}
# Foreign packages of the mount, and the rooms that alone may import them.
RESERVED = {
    "pyfuse3": {"fuse", "daemon"},
    "httpx": {"backend"},
    "httpcore": {"backend"},
    "httptools": {"backend"},
}
ALL = [(package, module) for package in SOURCES for module in modules(package)]
EVERY_MODULE = pytest.mark.parametrize(
    ("package", "module"), ALL, ids=[module.name for _, module in ALL]
)


def _room(name: str) -> str:
    """`filesfs.state.names` is in the room `state`; the package itself is in the room ""."""
    return [*name.split("."), ""][1]


def _rank(package: str, room: str) -> int:
    return RANKS[package].get(room, 0)


@EVERY_MODULE
def test_arrows_run_one_way(package: str, module: Module) -> None:
    room = _room(module.name)
    rank = _rank(package, room)
    wrong = []
    for name in sorted(module.imports):
        target = _room(name)
        leaves = rank == 0 == _rank(package, target)
        within = name.split(".")[0] == package and target != room and not leaves
        if within and _rank(package, target) >= rank:
            wrong.append(name)
    assert not wrong, (
        f"{module.shown} is in the room {room or package!r} and must not import {wrong}"
    )


@EVERY_MODULE
def test_foreign_packages_stay_in_their_rooms(package: str, module: Module) -> None:
    if package != "filesfs":
        return
    used = {name.split(".")[0] for name in module.imports}
    wrong = [name for name in used & RESERVED.keys() if _room(module.name) not in RESERVED[name]]
    assert not wrong, (
        f"{module.shown} imports {wrong}: only {[RESERVED[name] for name in wrong]} may"
    )


@EVERY_MODULE
def test_the_programs_share_the_bodies_and_nothing_else(package: str, module: Module) -> None:
    other = "filesfs" if package == "files_server" else "files_server"
    allowed = {"filesfs.wire", "filesfs.escape"} if package == "files_server" else set()
    if module.name == "filesfs.cli":
        allowed = {"files_server.auth"}  # `filesfs token` makes what the server reads
    wrong = {name for name in module.imports if name.split(".")[0] == other} - allowed
    assert not wrong, f"{module.shown} imports {sorted(wrong)}"


@EVERY_MODULE
def test_files_and_functions_stay_short(package: str, module: Module) -> None:
    lines = len(module.path.read_text(encoding="utf-8").splitlines())
    assert lines < MOST_LINES, f"{module.shown} has {lines} lines"
    long = [found for found in functions(module.path) if found[1] >= MOST_LINES_OF_A_FUNCTION]
    assert not long, f"functions of {module.shown} are too long: {long}"


def test_the_server_is_no_package_of_its_own_folder() -> None:
    assert not (SOURCES["files_server"].parent / "__init__.py").exists()
