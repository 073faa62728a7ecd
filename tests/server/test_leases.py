"""Leases: what is granted, recalled, confirmed; who waits for whom, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from tests.server.leasing import LeaseHolder, wait_until
from tests.server.running import RunningServer, running_server

SECONDS = 0.6
Headers = dict[str, str]


@pytest.fixture(scope="module")
def lessor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose leases are short, so that tests of who waits are, too."""
    folder = tmp_path_factory.mktemp("leases")
    with running_server(folder / "data", lease_seconds=SECONDS, keep_deleted="1h") as server:
        yield server


@pytest.fixture
def writer(lessor: RunningServer) -> Iterator[httpx.Client]:
    """Another client."""
    base = f"{lessor.url}/v1/files"
    with httpx.Client(base_url=base, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def holder(lessor: RunningServer, writer: httpx.Client, bucket: str) -> Iterator[LeaseHolder]:
    """A client with a feed, to which the server grants leases already."""
    put(writer, f"{bucket}/d/e/f", b"0")
    with LeaseHolder(lessor.url, f"holder-{bucket}") as made:
        wait_until(lambda: "files-lease" in made.ask(f"{bucket}/d/e/f")[1].headers)
        yield made


def put(client: httpx.Client, name: str, data: bytes = b"x", **headers: str) -> httpx.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    answer = client.put(f"/{name}?alt=media&view=full", content=data, headers=named)
    assert answer.status_code == 200, answer.text
    return answer


def call(client: httpx.Client, method: str, name: str, to: str, **headers: str) -> httpx.Response:
    given = {"Destination": f"/v1/files/{to}", **headers}
    answer = client.request(method, f"/{name}", headers=given)
    assert answer.status_code == 200, answer.text
    return answer


def seconds(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def test_a_leased_name_is_read_unasked_until_another_changes_it(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    holder.ask(name)
    asked = holder.asked
    assert (holder.read(name).content, holder.asked) == (b"0", asked)
    changed = put(writer, name, b"1")
    assert not holder.leased(name)  # before the answer came
    assert holder.events[-1][1] == int(changed.headers["files-cursor"].rpartition("-")[2])
    told = [(kind, data.get("data")) for kind, _, data in holder.events]
    assert told[-2:] == [("change", None), ("confirm", holder.term)]
    assert (holder.read(name).content, holder.asked) == (b"1", asked + 1)
    assert holder.leased(name)


def _session(client: httpx.Client, name: str, **more: str) -> None:
    bucket, _, key = name.partition("/")
    body = {"bucket": bucket, "key": key, "mime_type": "x", "size": 1, **more}
    client.post(client.post("", json=body).json()["url"], content=b"y").raise_for_status()


def _to_resource(client: httpx.Client, name: str) -> None:
    found = client.get(f"/{name}?view=full").json()["resource_id"]
    put(client, name, b"y", files_resource=found)


def _undelete(client: httpx.Client, name: str) -> None:
    gone = client.get(f"/{name}0?view=full").json()["etag"]
    client.delete(f"/{name}0").raise_for_status()
    client.post(f"/{name}?undelete={gone}", headers={"Overwrite": "T"}).raise_for_status()


def _folder(name: str) -> str:
    return name.removesuffix("e/f")


CHANGES: dict[str, Callable[[httpx.Client, str], object]] = {
    "put": put,
    "symlink": lambda client, name: put(client, name, b"t", content_type="inode/symlink"),
    "session": _session,
    "to its resource": _to_resource,
    "patch": lambda client, name: client.patch(f"/{name}", json={"mode": 0o600}),
    "delete": lambda client, name: client.delete(f"/{name}"),
    "move away": lambda client, name: call(client, "MOVE", name, f"{name}1"),
    "move over": lambda client, name: call(client, "MOVE", f"{name}0", name),
    "exchange": lambda client, name: call(client, "MOVE", f"{name}0", name, Exchange="T"),
    "exchanged": lambda client, name: call(client, "MOVE", name, f"{name}0", Exchange="T"),
    "bind": lambda client, name: call(client, "BIND", name, f"{name}1"),
    "undelete": _undelete,
    "folder": lambda client, name: call(client, "MOVE", _folder(name), f"{_folder(name)[:-1]}1/"),
    "folder exchanged": lambda client, name: call(
        client, "MOVE", f"{_folder(name)[:-1]}0/", _folder(name), Exchange="T"
    ),
    "folder for a file": lambda client, name: call(
        client, "MOVE", f"{_folder(name)}e/", f"{name.replace('e/f', 'g')}", Exchange="T"
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_kind_of_change_is_answered_after_the_recall(
    kind: str, holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    for other in (f"{name}0", f"{bucket}/d0/x", f"{bucket}/d/g"):
        put(writer, other)
    holder.ask(name)
    assert holder.leased(name)
    CHANGES[kind](writer, name)
    assert not holder.leased(name)
    assert holder.recalled


LINKED: dict[str, Callable[[httpx.Client, str, str], object]] = {
    "put": lambda client, other, _: put(client, other),
    "delete": lambda client, other, _: client.delete(f"/{other}"),
    "replaced": lambda client, other, third: call(client, "MOVE", third, other),
    "exchanged": lambda client, other, third: call(client, "MOVE", third, other, Exchange="T"),
}


@pytest.mark.parametrize("kind", LINKED)
def test_a_change_by_another_name_of_the_file_recalls(
    kind: str, holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name, other, third = f"{bucket}/d/e/f", f"{bucket}/link", f"{bucket}/third"
    put(writer, third)
    call(writer, "BIND", name, other)
    before = holder.ask(name)[1].headers["files-entry"]
    assert holder.leased(name)
    LINKED[kind](writer, other, third)
    assert not holder.leased(name)
    assert holder.ask(name)[1].headers["files-entry"] != before


def test_what_does_not_concern_a_name_waits_for_nobody(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    holder.silent = True
    holder.ask(name)
    for other in ("d/e/f0", "d/e/fg/h", "d/new/x", "top"):
        put(writer, f"{bucket}/{other}")
    writer.patch(f"/{bucket}/d/e/", json={"mode": 0o700}).raise_for_status()
    writer.delete(f"/{bucket}/d/new/x").raise_for_status()
    assert holder.recalled == 0


def test_who_never_confirms_holds_a_change_up_for_his_time_alone(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    holder.silent = True
    holder.ask(name)
    answer: list[float] = []

    def change() -> None:
        put(writer, name, b"1")
        answer.append(time.monotonic())

    thread = threading.Thread(target=change)
    thread.start()
    wait_until(lambda: holder.recalled)
    until = holder.until
    while thread.is_alive():  # what it asks meanwhile does not make it longer, and is told so
        granted = holder.ask(f"{bucket}/d/e/f")
        assert granted[0].content == b"1"  # made it is, and visible
        holder.renew(holder.term)
        time.sleep(0.02)
    assert until <= answer[0] < until + 0.5
    assert put(writer, name).elapsed.total_seconds() < SECONDS + 0.5


def test_a_client_does_not_wait_for_itself_and_keeps_its_lease(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    holder.silent = True
    holder.ask(name)
    own = {"Files-Origin": f"holder-{bucket}"}
    assert seconds(lambda: put(writer, name, b"1", **own)) < SECONDS / 2
    assert holder.recalled == 0
    assert seconds(lambda: put(writer, name, b"2")) >= SECONDS / 4  # leased it still was
    assert holder.recalled == 1


def test_several_holders_are_waited_for_all(
    lessor: RunningServer, holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    with LeaseHolder(lessor.url, f"second-{bucket}") as second:
        second.ask(name)
        holder.ask(name)
        put(writer, name, b"1")
        assert not holder.leased(name)
        assert not second.leased(name)
        holder.silent = True
        for each in (holder, second):
            each.ask(name)
        assert seconds(lambda: put(writer, name, b"2")) > SECONDS / 2


def test_a_recalled_name_is_recalled_again_until_it_is_confirmed(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    holder.silent = True
    holder.ask(name)
    until = holder.until
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(put, writer, name, data) for data in (b"1", b"2")]
        wait_until(lambda: holder.recalled == 2)
        assert not any(each.done() for each in both)
        first, second = sorted(at for kind, at, _ in holder.events if kind == "confirm")
        epoch = str(holder.events[-1][2]["cursor"]).partition("-")[0]
        holder.confirm(f"{epoch}-{first}")
        wait_until(lambda: sum(each.done() for each in both) == 1)
        time.sleep(0.02)
        assert sum(each.done() for each in both) == 1
        holder.confirm(f"{epoch}-{second}")
        for each in both:
            each.result(5)
        assert time.monotonic() < until
    assert seconds(lambda: put(writer, name)) < SECONDS / 2  # confirmed, it is leased no more


def test_eight_writers_at_once_wait_together(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    names = [f"{bucket}/d/e/w{number}" for number in range(8)]
    for silent in (False, True):
        for name in names:
            put(writer, name, b"0")
        holder.silent = silent
        for name in names:
            holder.ask(name)
        recalled = holder.recalled
        with ThreadPoolExecutor(8) as pool:
            taken = seconds(lambda: list(pool.map(partial(put, writer), names)))
        assert holder.recalled == recalled + 8
        assert taken < SECONDS + 0.5
        assert not silent or taken > SECONDS / 4


@pytest.mark.parametrize("way", ["delete", "session"])
def test_a_repeated_request_waits_like_the_first(
    way: str, holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name, since = f"{bucket}/d/e/f", holder.ask(f"{bucket}/d/e/f")[1].headers["files-cursor"]
    body = {"bucket": bucket, "key": "d/e/f", "mime_type": "x", "size": 1}
    url = writer.post("", json=body).json()["url"]
    headers = {"Files-Origin": f"w-{bucket}", "Files-Repeat": since}

    def change() -> httpx.Response:
        if way == "delete":
            return writer.delete(f"/{name}", headers=headers)
        return writer.post(url, content=b"y", headers={"Upload-Offset": "0"})

    holder.silent = True
    holder.ask(name)
    until = holder.until
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(change)
        wait_until(lambda: holder.recalled)
        again = change()
        assert time.monotonic() >= until
        assert again.headers["files-cursor"] == first.result(5).headers["files-cursor"]


def test_a_lease_takes_a_feed_the_header_and_a_file(
    lessor: RunningServer, holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name, asking = f"/{bucket}/d/e/f", {"Files-Lease": "1"}

    def granted(method: str, target: str, headers: Headers, client: httpx.Client) -> bool:
        return "files-lease" in client.request(method, target, headers=headers).headers

    holds = holder.client
    at = holder.files
    for method in ("GET", "HEAD"):
        assert granted(method, f"{at}{name}?view=full", asking, holds)
        assert granted(method, f"{at}{name}?alt=media&view=full", asking, holds)
        assert not granted(method, f"{at}{name}?view=full", {}, holds)
        assert not granted(method, f"{at}{name}", asking, holds)
        assert not granted(method, f"{at}{name}?alt=media", asking, holds)
        assert not granted(method, f"{at}/{bucket}/d/e/?view=full", asking, holds)
        assert not granted(method, f"{at}{name}?view=full", asking, writer)  # it has no origin
        other = {"Files-Origin": "without-a-feed", **asking}
        assert not granted(method, f"{at}{name}?view=full", other, writer)
    long = f"/{bucket}/{'x' * 1000}/{'y' * 100}"
    put(writer, long[1:])
    assert not granted("GET", f"{at}{long}?view=full", asking, holds)


def test_a_feed_without_an_origin_leases_nothing(
    lessor: RunningServer, writer: httpx.Client, bucket: str
) -> None:
    put(writer, f"{bucket}/f")
    with LeaseHolder(lessor.url, "") as nobody:
        for _ in range(2):
            assert "files-lease" not in nobody.ask(f"{bucket}/f")[1].headers


def test_terms_are_extended_run_out_and_begin_anew(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name, other = f"{bucket}/d/e/f", f"{bucket}/other"
    put(writer, other)
    holder.ask(name)
    term, first = holder.term, holder.until
    header = holder.renew(term).headers["files-lease"]
    assert header == f"{term} {int(SECONDS * 1000)}"
    holder.ask(other)
    assert holder.term == term
    assert holder.until > first
    assert holder.leased(name)
    time.sleep(max(0.0, holder.until - time.monotonic()) + 0.05)
    assert seconds(lambda: put(writer, name)) < SECONDS / 2  # nobody is asked
    assert holder.recalled == 0
    new = holder.renew(term).headers["files-lease"].partition(" ")[0]
    assert new != term
    assert not holder.leased(name)
    assert holder.ask(name)[1].headers["files-lease"].partition(" ")[0] == new


def test_what_is_given_back_is_waited_for_no_more(
    holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    holder.silent = True
    holder.ask(name)
    assert holder.client.delete(f"{holder.files}?leases=1", headers={"Files-Lease": "0"}).is_success
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(put, writer, name)
        wait_until(lambda: holder.recalled)
        assert not change.done()
        assert holder.release().status_code == 200
        assert time.monotonic() < holder.until
        change.result(5)
        assert time.monotonic() < holder.until
    assert seconds(lambda: put(writer, name)) < SECONDS / 2


def test_a_lost_feed_ends_no_lease_and_the_next_one_is_asked_again(
    lessor: RunningServer, holder: LeaseHolder, writer: httpx.Client, bucket: str
) -> None:
    name = f"{bucket}/d/e/f"
    holder.silent = True
    holder.ask(name)
    holder.lose_feed()
    wait_until(lambda: "files-lease" not in holder.renew(holder.term).headers)
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(put, writer, name)
        wait_until(lambda: writer.get(f"/{name}?alt=media").content == b"x")
        assert not change.done()
        with LeaseHolder(lessor.url, f"holder-{bucket}", silent=True) as again:
            wait_until(lambda: again.recalled)
            recall = again.events[-1][2]
            again.confirm(str(recall["cursor"]), str(recall["data"]))
            change.result(5)
            assert time.monotonic() < holder.until


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Files-Origin": "a"}, "Files-Lease is missing"),
        ({"Files-Origin": "a", "Files-Lease": "NO"}, "is no term"),
        ({"Files-Lease": "0"}, "Files-Origin header is needed"),
        ({"Files-Origin": "a b", "Files-Lease": "0"}, "Files-Origin"),
        ({"Files-Origin": "a", "Files-Lease": "0", "Last-Event-ID": "x"}, "EPOCH-NUMBER"),
    ],
)
def test_bad_input_is_400(headers: Headers, said: str, writer: httpx.Client) -> None:
    answer = writer.post("?leases=1", headers=headers)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


def test_what_else_is_refused(writer: httpx.Client, bucket: str) -> None:
    assert writer.delete("").status_code == 405
    put(writer, f"{bucket}/f")
    answer = writer.get(f"/{bucket}/f?view=full", headers={"Files-Lease": "yes"})
    assert answer.status_code == 400
    assert "Files-Lease" in answer.json()["detail"]
    nobody = {"Files-Origin": "nobody", "Files-Lease": "0"}
    assert "files-lease" not in writer.post("?leases=1", headers=nobody).headers


def test_the_extension_is_advertised_and_counted(
    holder: LeaseHolder, writer: httpx.Client, lessor: RunningServer, bucket: str
) -> None:
    assert "leases" in writer.options("").headers["files-extensions"].split(", ")

    def measured() -> dict[str, float]:
        lines = httpx.get(f"{lessor.url}/metrics").text.splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if line[0] != "#"}

    holder.ask(f"{bucket}/d/e/f")
    before = measured()
    assert before["files_server_leases"] >= 1
    holder.silent = True
    holder.ask(f"{bucket}/d/e/f")
    put(writer, f"{bucket}/d/e/f")
    after = measured()
    for name in ("recalls_total", "recalls_overdue_total"):
        assert after[f"files_server_{name}"] == before[f"files_server_{name}"] + 1
