"""The same random steps on the mount and on tmpfs: results, errnos, contents, stat and listings
must be the same after each.

MODEL_EXAMPLES makes it longer and random; the suite's own run is the same each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.model.actors import PROCESSES, Actors, started
from tests.model.sides import SLOTS, USERS, Side, Step
from tests.mount.mounting import MountedFilesystem
from tests.mount.places import ELSEWHERE

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "0"))
# Two levels are enough for all that renames and links can get wrong; few names, so that they meet.
PATHS = ("a", "b", "c", "a/a", "a/b", "b/a", "b/b", "a/b/c", "b/a/c")
FILE_CALLS = ("open", "close", "pread", "pwrite", "write", "ftruncate", "fsync", "map", "fstat")
NAME_CALLS = ("put", "append", "mkdir", "rmdir", "unlink", "rename", "link", "symlink", "mkfifo")
RARE_CALLS = ("noreplace", "exchange", "chmod", "chown", "utime", "truncate", "fchmod", "stat")

steps = st.builds(
    Step,
    call=st.sampled_from(FILE_CALLS + NAME_CALLS + RARE_CALLS + ("mkdir", "put", "open", "rename")),
    user=st.sampled_from([0, 0, 0, *range(len(USERS))]),
    path=st.sampled_from(PATHS),
    other=st.sampled_from(PATHS),
    number=st.integers(0, 20_000),
    slot=st.integers(0, SLOTS - 1),
    data=st.binary(min_size=1, max_size=6),
    process=st.integers(0, PROCESSES - 1),
)


# Where each walk begins: something to meet, and two files open.
BEGINNING = [
    Step("mkdir", path="a"),
    Step("mkdir", path="a/b"),
    Step("mkdir", path="b", user=1),
    Step("put", path="c", data=b"c"),
    Step("put", path="a/a", data=b"0123456789"),
    Step("put", path="b/b", user=1, data=b"theirs"),
    Step("open", path="a/a", number=1, slot=0),
    Step("open", path="b/b", number=5, slot=1, user=1),
]


@pytest.fixture(scope="module")
def beside() -> Iterator[Path]:
    """A directory on tmpfs."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[list[Popen[bytes]], list[Popen[bytes]]]]:
    """Those for the mount, and those for tmpfs."""
    with started() as these, started() as those:
        yield these, those


def compare(
    mounted: Side | Actors,
    model: Side | Actors,
    walk: list[Step],
    mount: MountedFilesystem | None = None,
) -> None:
    done: list[str] = []
    for step in [*BEGINNING, *walk]:
        if step.call == "crash":
            assert mount is not None
            assert isinstance(mounted, Side)
            assert isinstance(model, Side)
            crash(mounted, model, mount)
            done.append("crash")
        else:
            expected, found = model.do(step), mounted.do(step)
            done.append(f"{step.told}: {expected}")
            assert found == expected, "\n".join(done)
        assert mounted.picture() == model.picture(), "\n".join(done)


def crash(mounted: Side, model: Side, mount: MountedFilesystem) -> None:
    """kill -9 of the daemon, and a new one with the same cache. What was open is gone on both."""
    for side in (mounted, model):
        side.sync()
    mount.kill()
    for side in (mounted, model):
        side.close()
    mount.start()
    for side in (mounted, model):
        side.enter()


LIKE_THIS = settings(
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    # the suite has no time to make a failure smaller
    phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
)


@pytest.mark.timeout(3600 if EXAMPLES else 300)
@settings(LIKE_THIS, max_examples=EXAMPLES or 60)
@given(walk=st.lists(steps, min_size=15, max_size=50))
def test_random_steps(module_place: Path, beside: Path, walk: list[Step]) -> None:
    with roots(module_place, beside) as (one, two):
        compare_to_the_end(Side(one), Side(two), walk)


@pytest.mark.timeout(3600 if EXAMPLES else 300)
@settings(LIKE_THIS, max_examples=EXAMPLES or 25)
@given(walk=st.lists(steps, min_size=20, max_size=50))
def test_random_steps_of_processes(
    module_place: Path,
    beside: Path,
    processes: tuple[list[Popen[bytes]], list[Popen[bytes]]],
    walk: list[Step],
) -> None:
    with roots(module_place, beside) as (one, two):
        compare_to_the_end(Actors(processes[0], one), Actors(processes[1], two), walk)


@pytest.mark.timeout(3600 if EXAMPLES else 300)
@settings(LIKE_THIS, max_examples=EXAMPLES or 6)
@given(lives=st.lists(st.lists(steps, min_size=5, max_size=20), min_size=3, max_size=4))
def test_random_steps_and_crashes(
    request: pytest.FixtureRequest, module_place: Path, beside: Path, lives: list[list[Step]]
) -> None:
    if ELSEWHERE:
        pytest.skip("only a mount has a daemon")
    walk = [step for life in lives for step in (*life, Step("crash"))]
    with roots(module_place, beside) as (one, two):
        compare_to_the_end(Side(one), Side(two), walk, request.getfixturevalue("mount"))


@contextlib.contextmanager
def roots(*folders: Path) -> Iterator[list[Path]]:
    """An empty directory in each."""
    made = [Path(tempfile.mkdtemp(dir=folder)) for folder in folders]
    try:
        yield made
    finally:
        for root in made:
            shutil.rmtree(root)


def compare_to_the_end(
    mounted: Side | Actors,
    model: Side | Actors,
    walk: list[Step],
    mount: MountedFilesystem | None = None,
) -> None:
    try:
        compare(mounted, model, walk, mount)
    finally:
        mounted.close()
        model.close()
