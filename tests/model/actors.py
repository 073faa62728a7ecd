"""Several processes on one side, each with descriptors of its own.

As a program (`python -m tests.model.actors`) it reads pickled directories and steps, and answers
each with what it saw.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.model.sides import Seen, Side, Step, picture_of

PROCESSES = 3


class Actors:
    """A side whose steps are done by processes: `step.process` says by which. Others do not see its
    descriptors.
    """

    def __init__(self, processes: list[subprocess.Popen[bytes]], root: Path) -> None:
        self.root = root
        self._processes = processes
        root.chmod(0o777)
        for process in processes:
            _ask(process, root)

    def do(self, step: Step) -> Seen:
        seen: Seen = _ask(self._processes[step.process % PROCESSES], step)
        return seen

    def picture(self) -> dict[str, object]:
        return picture_of(self.root)

    def close(self) -> None:
        """The descriptors of each."""
        for process in self._processes:
            _ask(process, None)


@contextlib.contextmanager
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes for one side, for several walks."""
    command = [sys.executable, "-m", "tests.model.actors"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.communicate(timeout=60)  # the end of its input ends it


def _ask(process: subprocess.Popen[bytes], message: object) -> Seen:
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump(message, process.stdin)
    process.stdin.flush()
    answer: Seen = pickle.load(process.stdout)
    return answer


def main() -> None:
    """One process: a directory to work in, then steps, then None."""
    side: Side | None = None
    while True:
        try:
            message = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        answer: Seen = ("ok", None)
        if isinstance(message, Step):
            assert side is not None
            answer = side.do(message)
        elif side is not None:
            side.close()
        if isinstance(message, Path):
            side = Side(message)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
