"""open() of a leased file asks nobody; after anything that may end the lease it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from filesfs.domain import AttributeChange, Change, Lease, Location, lease_clock
from filesfs.errors import DeadlineExceeded, FileSystemError
from filesfs.state.inodes import Node
from filesfs.wire import Operation
from tests.fakes.memory_tree import MemoryTree
from tests.unit.filesystem_rig import ROOT_USER, Rig, rig

pytestmark = pytest.mark.trio
PLACE = Location("b", "f")


def granted(span: float = 60.0, term: str = "t") -> Lease:
    return Lease(term, lease_clock() + span, span)


@asynccontextmanager
async def leased(folder: Path) -> AsyncIterator[tuple[Rig, Rig, Node]]:
    """A client that has leased a file, another one of the same server, and the file's node."""
    tree = MemoryTree()
    async with rig(folder / "1", tree, feed=True) as mine, rig(folder / "2", tree, origin="o") as o:
        mine.backend.lease = granted()
        node = await mine.store(b"f", b"one")
        await mine.close(await mine.open(node))
        yield mine, o, node


async def asked(mine: Rig, node: Node) -> bool:
    """Whether an open() of the file asks the server."""
    mine.backend.faults.calls.clear()
    await mine.close(await mine.open(node))
    return bool(mine.calls)


async def test_nobody_is_asked(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, node):
        assert not await asked(mine, node)
        assert await mine.content(b"f") == b"one"


async def test_what_another_client_changes_is_asked_for(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, other, node):
        await other.backend.put(PLACE, b"two", "text/plain", AttributeChange())
        await trio.testing.wait_all_tasks_blocked()
        assert await asked(mine, node)
        assert await mine.content(b"f") == b"two"
        assert not await asked(mine, node)


async def test_what_we_change_is_asked_for_once(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, node):
        handle = await mine.open(node, 1)
        await mine.fs.files.write(handle, 0, b"two")
        await mine.close(handle)
        assert await asked(mine, node)
        assert not await asked(mine, node)


async def test_a_file_that_we_renamed_is_asked_for(tmp_path: Path) -> None:
    """The lease is of the old name: who puts another file over the new one waits for nobody."""
    async with leased(tmp_path) as (mine, _, node):
        await mine.fs.renaming.rename((mine.bucket, b"f"), (mine.bucket, b"g"), 0)
        assert await asked(mine, node)


async def test_a_file_below_a_directory_that_we_renamed_is_asked_for(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, node):
        directory = await mine.fs.namespace.mkdir(mine.bucket, b"d", 0o755, ROOT_USER)
        await mine.fs.renaming.rename((mine.bucket, b"f"), (directory, b"f"), 0)
        await mine.close(await mine.open(node))
        assert not await asked(mine, node)
        await mine.fs.renaming.rename((mine.bucket, b"d"), (mine.bucket, b"e"), 0)
        assert await asked(mine, node)


async def test_while_a_rename_waits_for_its_answer_everybody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with leased(tmp_path) as (mine, _, node):
        await mine.store(b"g", b"")
        seen = []

        async def lost(*_: object, **__: object) -> int:
            seen.append(await asked(mine, node))
            raise DeadlineExceeded("no answer")

        monkeypatch.setattr(mine.backend, "move", lost)
        with pytest.raises((DeadlineExceeded, FileSystemError)):
            await mine.fs.renaming.rename((mine.bucket, b"g"), (mine.bucket, b"h"), 0)
        assert seen == [True]
        assert await asked(mine, node)  # where it is now is anybody's guess


async def test_a_version_that_an_old_listing_brought_back_is_not_believed(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, other, node):
        before = node.entry
        assert before is not None
        await other.backend.put(PLACE, b"two", "text/plain", AttributeChange())
        await trio.testing.wait_all_tasks_blocked()
        await mine.close(await mine.open(node))
        mine.fs.core.inodes.set_entry(node, before)
        assert await asked(mine, node)


async def test_without_the_feed_it_is_asked_for(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, node):
        mine.fs.core.leases.feed_lost()
        assert await asked(mine, node)
        assert await asked(mine, node)


async def test_a_recall_is_confirmed_once_it_was_heard(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, _node):
        recall = Change(Operation.BUCKET, (), None, None, True, "e-7", recall="t")
        mine.backend.tell(recall)
        await trio.testing.wait_all_tasks_blocked()
        assert mine.backend.extended == [("t", "e-7")]


async def test_who_opens_all_the_time_has_them_extended(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, node):
        leases = mine.fs.core.leases
        leases.clear()
        mine.backend.lease = Lease("t", lease_clock() + 10, 60)  # more than half of it is over
        await mine.close(await mine.open(node))
        leases._until = lease_clock() + 10
        mine.backend.lease = granted()
        for _ in range(3):
            assert not await asked(mine, node)
            await trio.testing.wait_all_tasks_blocked()
        assert mine.backend.extended == [("t", "")]
        assert not leases.is_half_over


async def test_at_the_end_they_are_given_back(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, node):
        await mine.fs.coherence.end()
        assert mine.backend.lease is None
        assert await asked(mine, node)


async def test_a_change_by_another_name_is_heard_of_too(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, other, node):
        assert node.entry is not None
        await mine.fs.namespace.link(node, mine.bucket, b"g")
        resource = node.entry.resource_id
        await other.backend.put(
            Location("b", "g"), b"two", "text/plain",
            AttributeChange(), resource_id=resource,
        )  # fmt: skip
        await trio.testing.wait_all_tasks_blocked()
        assert await asked(mine, node)
        assert await asked(mine, node)  # with two names it has none


async def test_a_recall_is_confirmed_by_the_term_that_it_names(tmp_path: Path) -> None:
    """The answer that brings that term may still be on its way."""
    async with leased(tmp_path) as (mine, _, _node):
        mine.backend.tell(Change(Operation.BUCKET, (), None, None, True, "e-8", recall="newer"))
        await trio.testing.wait_all_tasks_blocked()
        assert mine.backend.extended == [("newer", "e-8")]


async def test_after_an_unlink_of_which_nobody_heard_it_is_asked_for(tmp_path: Path) -> None:
    async with leased(tmp_path) as (mine, _, node):
        await mine.close(await mine.open(node))
        mine.backend.faults.fail("remove", DeadlineExceeded("no answer"), after=True)
        with pytest.raises((DeadlineExceeded, FileSystemError)):
            await mine.fs.namespace.unlink(mine.bucket, b"f")
        mine.backend.faults.calls.clear()
        with pytest.raises(FileSystemError):
            await mine.open(node)


async def test_a_name_is_asked_for_after_a_removal_or_move_of_which_nobody_heard(
    tmp_path: Path,
) -> None:
    async with leased(tmp_path) as (mine, _, _node):
        await mine.store(b"g", b"")
        assert await mine.names() == [b"f", b"g"]
        mine.backend.faults.fail("remove", DeadlineExceeded("no answer"), after=True)
        with pytest.raises((DeadlineExceeded, FileSystemError)):
            await mine.fs.namespace.unlink(mine.bucket, b"f")
        assert await mine.names() == [b"g"]
        mine.backend.faults.fail("move", DeadlineExceeded("no answer"), after=True)
        with pytest.raises((DeadlineExceeded, FileSystemError)):
            await mine.fs.renaming.rename((mine.bucket, b"g"), (mine.bucket, b"h"), 0)
        assert await mine.names() == [b"h"]


async def test_what_the_journal_stored_without_a_node_is_asked_for(tmp_path: Path) -> None:
    """As of an earlier mount, or after a close() that was refused: the event of it is our own."""
    async with leased(tmp_path) as (mine, _, node):
        await mine.close(await mine.open(node))
        await mine.backend.put(PLACE, b"two", "text/plain", AttributeChange())
        mine.fs.coherence.appeared(PLACE)
        assert await asked(mine, node)
