"""Tokens: their file, their rights, and what a request needs of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from files_server import auth
from files_server.access import Access
from files_server.auth import Right, Signer, Tokens, TokensError, new_token
from tests.security.asgi import ask, replying

BASE = "http://localhost"
KEY = b"k" * 32


def _file(path: Path, *lines: str) -> Path:
    path.write_text("# tokens\n\n" + "".join(f"{line}\n" for line in lines))
    path.chmod(0o644)
    return path


def _access(tokens: Tokens, seconds: int = 900) -> Access:
    reply = lambda: f"{auth.current().name} {auth.signature('b', 'k')}".encode()  # noqa: E731
    return Access(replying(reply), tokens, Signer(KEY, seconds), BASE)


def _one(rights: str, buckets: str = "*") -> tuple[Access, dict[str, str]]:
    token, line = new_token("ann", rights, buckets)
    tokens = Tokens(None, {auth.VARIABLE: line})
    return _access(tokens), {"Authorization": f"Bearer {token}"}


def test_without_tokens_nobody_is_asked() -> None:
    assert ask(_access(Tokens(None, {})), "DELETE", "/v1/files/b/k").status == 200


def test_a_missing_or_wrong_token_is_401_with_a_challenge() -> None:
    access, _ = _one("read")
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}):
        answer = ask(access, "GET", "/v1/files/b/k", headers)
        assert answer.status == 401
        assert answer.headers[b"www-authenticate"].startswith(b"Bearer")


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/v1/files", "read"),
        ("OPTIONS", "/v1/files", "read"),
        ("GET", "/files/b", "read"),
        ("GET", "/files/b/k", "read"),
        ("HEAD", "/files/b/k?alt=media", "read"),
        ("POST", "/files", "write"),
        ("POST", "/files/b?contents=1", "read"),
        ("POST", "/files/session:abc", "write"),
        ("GET", "/files/session:abc", "write"),
        ("DELETE", "/files/session:abc", "write"),
        ("PUT", "/files/b", "write"),
        ("PUT", "/files/b/k?alt=media", "write"),
        ("PATCH", "/files/b/k", "write"),
        ("MOVE", "/files/b/k", "write"),
        ("BIND", "/files/b/k", "write"),
        ("DELETE", "/files/b", "delete"),
        ("DELETE", "/files/b/k", "delete"),
        ("PUT", "/files/b/k", "register"),
        ("PUT", "/files/b/k?xalt=media", "register"),
        ("PUT", "/files/file%3A%2F%2F%2Fdata", "register"),
        ("PUT", "/files/file%3A%2F%2F%2Fdata/k?alt=media", "register"),
        ("GET", "/metrics", "admin"),
    ],
)
def test_each_operation_needs_its_right_and_no_other(method: str, path: str, right: str) -> None:
    access, headers = _one(right)
    assert ask(access, method, path, headers).status == 200
    others = ",".join(sorted({"read", "write", "delete", "register"} - {right}))
    access, headers = _one(others)
    assert ask(access, method, path, headers).status == 403
    access, headers = _one("admin")
    assert ask(access, method, path, headers).status == 200


def test_a_token_is_good_for_its_buckets_only() -> None:
    access, headers = _one("read,write", "team-*,pub")
    assert ask(access, "GET", "/files/team-a/k", headers).status == 200
    assert ask(access, "GET", "/files/pub/k", headers).status == 200
    assert ask(access, "GET", "/files/%70ub/k", headers).status == 200
    refused = ask(access, "GET", "/files/private/k", headers)
    assert refused.status == 403
    assert "'private'" in refused.detail


@pytest.mark.parametrize("method", ["MOVE", "BIND"])
def test_content_leaves_a_bucket_only_with_rights_to_both(method: str) -> None:
    access, headers = _one("read,write,delete", "a")
    for target in ("/v1/files/b/k", "http://localhost/v1/files/b/k"):
        given = {**headers, "Destination": target}
        assert ask(access, method, "/files/a/k", given).status == 403
    given = {**headers, "Destination": "/v1/files/a/other"}
    assert ask(access, method, "/files/a/k", given).status == 200
    access, headers = _one("write", "*")
    given = {**headers, "Destination": "/v1/files/b/k"}
    assert ask(access, method, "/files/a/k", given).status == 403


def test_a_changed_file_counts_without_a_restart(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(auth, "_RELOAD_SECONDS", 0)
    first, line = new_token("ann")
    path = _file(tmp_path / "tokens", line)
    tokens = Tokens(path, {})
    second, other = new_token("bob")
    assert tokens.find(first) is not None
    _file(path, other)
    assert tokens.find(first) is None
    assert tokens.find(second) is not None


def test_a_broken_change_is_reported_and_the_last_good_table_stays(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(auth, "_RELOAD_SECONDS", 0)
    token, line = new_token("ann")
    path = _file(tmp_path / "tokens", line)
    warnings: list[str] = []
    tokens = Tokens(path, {}, warnings.append)
    _file(path, "nonsense")
    assert tokens.find(token) is not None
    assert tokens.find(token) is not None
    assert len(warnings) == 1
    assert "line 3" in warnings[0]


def test_the_file_holds_no_token(tmp_path: Path) -> None:
    token, line = new_token("ann", "read,write", "a,b-*")
    assert token not in line
    assert Tokens(None, {auth.VARIABLE: line}).find(token) == auth.Grant(
        "ann", frozenset({Right.READ, Right.WRITE}), ("a", "b-*")
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ann", "4 fields"),
        (f"ann sha256:{'0' * 63} read *", "64 lower-case hex"),
        (f"ann sha256:{'0' * 64} fly *", "no such right: fly"),
        (f"a/b sha256:{'0' * 64} read *", "the name"),
        (f"ann sha256:{'0' * 64} read a/*", "patterns"),
        (f"ann sha256:{'0' * 64} read *\nann sha256:{'1' * 64} read *", "taken"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(TokensError, match=says):
        Tokens(_file(tmp_path / "tokens", line), {})


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "tokens", new_token("ann")[1])
    path.chmod(0o666)
    with pytest.raises(TokensError, match="chmod"):
        Tokens(path, {})


def _signed(access: Access, headers: dict[str, str]) -> str:
    suffix = ask(access, "GET", "/files/b/k", headers).body.decode().split(" ")[1]
    return f"?alt=media{suffix}"


def test_a_signed_url_lets_its_file_be_read_without_a_token() -> None:
    access, headers = _one("read,write,delete")
    signed = _signed(access, headers)
    assert ask(access, "GET", f"/v1/files/b/k{signed}").status == 200
    assert ask(access, "HEAD", f"/files/b/k{signed}").status == 200


def test_a_signed_url_is_for_one_file_and_for_reading_only() -> None:
    access, headers = _one("read,write,delete")
    signed = _signed(access, headers)
    assert ask(access, "GET", f"/v1/files/b/other{signed}").status == 403
    assert ask(access, "GET", f"/v1/files/c/k{signed}").status == 403
    assert ask(access, "GET", f"/v1/files/b{signed}").status == 403
    for method in ("PUT", "DELETE", "POST", "PATCH", "MOVE"):
        assert ask(access, method, f"/v1/files/b/k{signed}").status == 403
    assert ask(access, "GET", f"/v1/files/b/k{signed}&version=x").status == 403
    assert ask(access, "GET", f"/v1/files/b/k{signed}&version=").status == 403
    assert ask(access, "GET", f"/v1/files/b/k{signed.replace('alt=media', 'x=1')}").status == 403
    assert ask(access, "GET", f"/v1/files/b/k{signed[:-1]}").status == 403
    assert ask(access, "GET", "/v1/files/b/k?alt=media&signature=").status == 403


def test_a_signed_url_expires() -> None:
    token, line = new_token("ann")
    access = _access(Tokens(None, {auth.VARIABLE: line}), seconds=-1)
    signed = _signed(access, {"Authorization": f"Bearer {token}"})
    refused = ask(access, "GET", f"/v1/files/b/k{signed}")
    assert refused.status == 403
    assert "expired" in refused.detail


def test_a_signed_url_ends_with_its_token(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(auth, "_RELOAD_SECONDS", 0)
    token, line = new_token("ann")
    path = _file(tmp_path / "tokens", line)
    access = _access(Tokens(path, {}))
    signed = _signed(access, {"Authorization": f"Bearer {token}"})
    _file(path, new_token("bob")[1])
    assert ask(access, "GET", f"/v1/files/b/k{signed}").status == 403


def test_the_signing_key_is_private_and_stays(tmp_path: Path) -> None:
    key = auth.signing_key(tmp_path / "url.key")
    assert auth.signing_key(tmp_path / "url.key") == key
    assert (tmp_path / "url.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "url.key").write_bytes(b"short")
    assert len(auth.signing_key(tmp_path / "url.key")) == 32
