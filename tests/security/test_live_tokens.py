"""Tokens against a running server: what only bodies and the catalog tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from files_server.auth import new_token
from tests.server.running import running_server

TOKENS = {
    "ann": ("read,write,delete", "a,shared"),
    "bob": ("read,write,delete", "b,shared"),
    "reader": ("read", "*"),
    "root": ("admin", "*"),
    "lead": ("admin", "a"),
}


class Clients:
    """A client for each token, and one without."""

    def __init__(self, url: str, secrets: dict[str, str]) -> None:
        self._clients = {
            name: httpx.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {secret}"})
            for name, secret in secrets.items()
        }
        self._clients["nobody"] = httpx.Client(base_url=f"{url}/v1")
        self.secrets = secrets

    def __getitem__(self, name: str) -> httpx.Client:
        return self._clients[name]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "data.log"


@pytest.fixture(scope="module")
def clients(log_path: Path) -> Iterator[Clients]:
    made = {name: new_token(name, *given) for name, given in TOKENS.items()}
    path = log_path.parent / "tokens"
    path.write_text("".join(line + "\n" for _, line in made.values()))
    with running_server(log_path.parent / "data", tokens_file=path) as server:
        clients = Clients(server.url, {name: secret for name, (secret, _) in made.items()})
        for name in ("a", "b", "shared"):
            put = clients["root"].put(f"/files/{name}/k?alt=media", content=name.encode())
            put.raise_for_status()
        yield clients
        clients.close()


def test_a_listing_shows_the_buckets_that_may_be_read(clients: Clients) -> None:
    def names(who: str) -> list[str]:
        return [entry["name"] for entry in clients[who].get("/files").json()["data"]]

    assert names("ann") == ["a", "shared"]
    assert names("bob") == ["b", "shared"]
    assert {"a", "b", "shared"} <= set(names("reader"))
    assert clients["nobody"].get("/files").status_code == 401
    assert clients["nobody"].get("/healthz".replace("/v1", "")).status_code in (200, 401)


def test_op_1_asks_for_the_bucket_in_its_body(clients: Clients) -> None:
    body = {"bucket": "b", "key": "x", "mime_type": "text/plain", "size": 1}
    assert clients["ann"].post("/files", json=body).status_code == 403
    assert clients["reader"].post("/files", json=body).status_code == 403
    assert clients["bob"].post("/files", json=body).status_code == 200


def test_a_session_belongs_to_the_token_that_made_it(clients: Clients) -> None:
    body = {"bucket": "shared", "key": "s", "mime_type": "text/plain", "size": 1}
    session = clients["ann"].post("/files", json=body).json()["id"]
    path = f"/files/session:{session}"
    assert clients["bob"].get(path).status_code == 403
    assert clients["bob"].post(path, content=b"x").status_code == 403
    assert clients["bob"].delete(path).status_code == 403
    assert clients["reader"].get(path).status_code == 403
    assert clients["nobody"].post(path, content=b"x").status_code == 401
    assert clients["lead"].get(path).status_code == 403  # an admin, but of another bucket
    assert clients["lead"].post(path, content=b"x").status_code == 403
    assert clients["root"].get(path).json()["offset"] == 0
    assert clients["ann"].post(path, content=b"x").json()["bytes"] == 1


def test_a_resource_is_not_replaced_from_another_bucket(clients: Clients) -> None:
    entry = clients["bob"].get("/files/b/k?view=full").json()
    headers = {"Files-Resource": entry["resource_id"]}
    answer = clients["ann"].put("/files/a/y?alt=media", content=b"evil", headers=headers)
    assert answer.status_code == 410
    assert clients["bob"].get("/files/b/k?alt=media").content == b"b"


def test_a_version_is_not_read_through_another_bucket(clients: Clients) -> None:
    etag = clients["bob"].get("/files/b/k?view=full").json()["etag"]
    answer = clients["ann"].get("/files/a/k", params={"alt": "media", "version": etag})
    assert answer.status_code == 410


def test_content_is_not_moved_or_bound_out_of_reach(clients: Clients) -> None:
    for method in ("MOVE", "BIND"):
        headers = {"Destination": "/v1/files/a/stolen"}
        assert clients["ann"].request(method, "/files/b/k", headers=headers).status_code == 403
        headers = {"Destination": "/v1/files/b/planted"}
        assert clients["ann"].request(method, "/files/a/k", headers=headers).status_code == 403


def test_the_url_works_without_a_token_and_for_nothing_else(clients: Clients) -> None:
    url = clients["ann"].get("/files/a/k").json()["url"]
    assert httpx.get(url).content == b"a"
    assert httpx.get(url.replace("/a/k", "/b/k")).status_code == 403
    assert httpx.put(url, content=b"evil").status_code == 403
    assert httpx.delete(url).status_code == 403
    listed = clients["ann"].get("/files/a").json()["data"][0]["url"]
    assert httpx.get(listed).content == b"a"


def test_the_change_feed_tells_of_readable_buckets_only(clients: Clients) -> None:
    with clients["ann"].stream("GET", "/files?changes=1") as stream:
        lines = stream.iter_lines()
        next(lines)
        clients["bob"].put("/files/b/hidden?alt=media", content=b"x").raise_for_status()
        clients["ann"].put("/files/a/seen?alt=media", content=b"x").raise_for_status()
        data = next(line for line in lines if line.startswith("data:"))
    assert json.loads(data.removeprefix("data:"))["keys"] == [["a", "seen"]]


def test_no_secret_is_in_the_log(clients: Clients, log_path: Path) -> None:
    url = clients["ann"].get("/files/a/k").json()["url"]
    httpx.get(url).raise_for_status()
    body = {"bucket": "a", "key": "l", "mime_type": "text/plain", "size": 1}
    session = clients["ann"].post("/files", json=body).json()["id"]
    clients["ann"].post(f"/files/session:{session}", content=b"x").raise_for_status()
    log = log_path.read_text()
    for secret in (*clients.secrets.values(), session, url.partition("signature=")[2]):
        assert secret not in log
    assert '"token": "ann"' in log
