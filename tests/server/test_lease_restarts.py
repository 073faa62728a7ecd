"""Leases and the server's end: kill -9 with a lease out, a graceful stop, and none at all."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from tests.server.leasing import LeaseHolder, wait_until
from tests.server.running import RunningServer, running_server

SECONDS = 3.0


def granted(holder: LeaseHolder) -> None:
    """Lease b/f; the first grants are refused until the marker is on the disk."""
    wait_until(lambda: "files-lease" in holder.ask("b/f")[1].headers)


def changed(server: RunningServer, data: bytes) -> httpx.Response:
    return httpx.put(f"{server.url}/v1/files/b/f?alt=media", content=data, timeout=20)


def test_a_killed_server_answers_no_change_until_its_leases_are_over(data_dir: Path) -> None:
    with running_server(data_dir, lease_seconds=SECONDS) as server:
        changed(server, b"0")
        for _ in range(2):  # killed once more while it waits, it waits again
            with LeaseHolder(server.url, "holder") as holder:
                if not (data_dir / "leases").exists():
                    granted(holder)
                server.kill()
                server.start()
        started = time.monotonic()
        with httpx.Client(base_url=f"{server.url}/v1/files", timeout=20) as other:
            refused = other.put("/b/f?alt=media", content=b"-", headers={"If-None-Match": "*"})
            assert refused.status_code == 412  # no change, so nobody waits
            assert time.monotonic() - started < 1
            changed(server, b"1")
            assert time.monotonic() - started > 1  # what is left after the time it took to start
            assert other.get("/b/f?alt=media").content == b"1"
            begun = time.monotonic()
            changed(server, b"2")
            assert time.monotonic() - begun < 1
    assert not (data_dir / "leases").exists()


def test_a_change_is_visible_while_its_answer_waits(data_dir: Path) -> None:
    with running_server(data_dir, lease_seconds=SECONDS) as server:
        changed(server, b"0")
        with LeaseHolder(server.url, "holder") as holder:
            granted(holder)
            server.kill()
            server.start()
        with LeaseHolder(server.url, "other") as other:
            assert "files-lease" not in other.ask("b/f")[1].headers  # not while others may be out
            with httpx.Client(timeout=0.5) as hasty:
                try:
                    hasty.put(f"{server.url}/v1/files/b/f?alt=media", content=b"1")
                except httpx.ReadTimeout:
                    assert other.ask("b/f")[0].content == b"1"
                else:
                    raise AssertionError("it was answered at once")
            wait_until(lambda: "files-lease" in other.ask("b/f")[1].headers)


def test_a_stop_leaves_the_marker_where_a_lease_is_out(data_dir: Path) -> None:
    with running_server(data_dir, lease_seconds=SECONDS) as server:
        changed(server, b"0")
        with LeaseHolder(server.url, "holder") as holder:
            granted(holder)
            holder.release()
            server.stop()
        assert not (data_dir / "leases").exists()
        server.start()
        begun = time.monotonic()
        changed(server, b"1")
        assert time.monotonic() - begun < 1
        with LeaseHolder(server.url, "holder") as holder:
            granted(holder)
            server.stop()
        assert (data_dir / "leases").exists()
        server.start()
        begun = time.monotonic()
        changed(server, b"2")
        assert time.monotonic() - begun > 1


def test_a_marker_that_cannot_be_read_stands_for_the_longest(data_dir: Path) -> None:
    with running_server(data_dir) as server:
        changed(server, b"0")
        server.stop()
        (data_dir / "leases").write_bytes(b"\xff")
        server.start()
        assert "for 10 s" in server.log()
        server.kill()
        (data_dir / "leases").write_text("1\n")
        server.start()
        begun = time.monotonic()
        changed(server, b"1")
        assert time.monotonic() - begun < 1


def test_leases_can_be_turned_off(data_dir: Path) -> None:
    with running_server(data_dir, lease_seconds=0) as server:
        changed(server, b"0")
        with LeaseHolder(server.url, "holder") as holder:
            for _ in range(3):
                assert "files-lease" not in holder.ask("b/f")[1].headers
                assert "files-lease" not in holder.renew("0").headers
        assert not (data_dir / "leases").exists()
