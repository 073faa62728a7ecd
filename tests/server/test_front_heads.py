"""What the HTTP front takes for a request's head, and what it refuses, byte by byte from a socket.

Each refusal ends the connection: what comes behind it is no request to anybody.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from files_server.front import heads
from tests.server.fronting import GET, Echo, serving

LINE = b"GET /a HTTP/1.1\r\n"
HOST = LINE + b"Host: x\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: x\r\n"
CODED = PUT + b"Transfer-Encoding: chunked"
CHUNK = b"1\r\nx\r\n0\r\n\r\n"

REFUSED = {
    # Two parsers could see two different requests here.
    "length and chunks": (PUT + b"Content-Length: 11\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "chunks and length": (PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 11\r\n\r\n", 400),
    "two lengths": (PUT + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "the same length twice": (PUT + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
    "a list of lengths": (PUT + b"Content-Length: 1, 1\r\n\r\n", 400),
    "a signed length": (PUT + b"Content-Length: +1\r\n\r\n", 400),
    "a negative length": (PUT + b"Content-Length: -1\r\n\r\n", 400),
    "a length in two words": (PUT + b"Content-Length: 1 1\r\n\r\n", 400),
    "a length of nothing": (PUT + b"Content-Length:\r\n\r\n", 400),
    "a length beyond 64 bits": (PUT + b"Content-Length: 18446744073709551617\r\n\r\n", 400),
    "chunks twice": (CODED + b"\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "chunks not last": (PUT + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "identity": (PUT + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "an unknown coding": (PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "a coding with a tab": (PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "chunks in 1.0": (b"PUT /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "space before the colon": (PUT + b"Content-Length : 5\r\n\r\n", 400),
    "tab before the colon": (PUT + b"Content-Length\t: 5\r\n\r\n", 400),
    "a folded line": (HOST + b"A: b\r\n c\r\n\r\n", 400),
    "a line with a tab first": (HOST + b"A: b\r\n\tc\r\n\r\n", 400),
    "bare LF": (b"GET /a HTTP/1.1\nHost: x\n\n", 400),
    "bare LF in the headers": (HOST + b"A: b\nB: c\r\n\r\n", 400),
    "bare LF at the end": (HOST + b"A: b\r\n\n\r\n\r\n", 400),
    "bare CR": (HOST + b"A: b\rB: c\r\n\r\n", 400),
    "NUL": (HOST + b"A: b\x00c\r\n\r\n", 400),
    "a control character": (HOST + b"A: b\x01\r\n\r\n", 400),
    "no name": (HOST + b": b\r\n\r\n", 400),
    "no colon": (HOST + b"abc\r\n\r\n", 400),
    "a name that is no token": (HOST + b"A(b): c\r\n\r\n", 400),
    # No request, or none that can be answered here.
    "no host": (LINE + b"\r\n", 400),
    "two hosts": (HOST + b"Host: y\r\n\r\n", 400),
    "no version": (b"GET /a\r\n\r\n", 400),
    "a version in a header": (b"GET /a\r\nB:c HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two spaces": (b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a tab": (b"GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "spaces in the target": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a control character in the target": (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "bytes beyond ASCII in the target": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a fragment": (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a target that is no path": (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.2": (b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /a HTTP/0.9\r\n\r\n", 505),
    "RTSP": (b"DESCRIBE /a RTSP/1.0\r\n\r\n", 400),
    "a method in small letters": (b"get /a HTTP/1.1\r\nHost: x\r\n\r\n", 505),
    "an unknown method": (b"FROB /a HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "an endless method": (b"G" * 100, 400),
    # Too much.
    "many headers": (HOST + b"".join(b"A%d: b\r\n" % n for n in range(120)) + b"\r\n", 431),
    "a long header": (HOST + b"A: " + b"b" * 300_000, 431),
    "a long target": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "an endless target": (b"GET /" + b"a" * 300_000, 431),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path: Path, sent: bytes, status: int) -> None:
    app = Echo()
    with serving(app, tmp_path) as served, served.client() as client:
        client.send(sent + CHUNK + GET)
        found, headers, body = client.answer()
        assert (found, headers["connection"]) == (status, "close")
        assert json.loads(body)["status"] == status
        client.end()
        assert client.rest() == b""
    assert app.scopes == []


def test_no_more_headers_are_read_than_are_allowed() -> None:
    """Another client would wait for that."""
    begun = time.thread_time()
    with pytest.raises(heads.Refused) as refused:
        heads.parse(HOST + b"a:\r\n" * 60_000 + b"\r\n")
    assert time.thread_time() - begun < 0.005
    assert refused.value.status == 431


def test_what_is_told_of_a_request(tmp_path: Path) -> None:
    app = Echo()
    with serving(app, tmp_path) as served, served.client() as client:
        client.send(
            b"MOVE /v1/%2e%2E/a?b=%20&c HTTP/1.1\r\nHOST: x\r\nA:  b c \t\r\nA:\r\nB: \xe4\r\n\r\n"
        )
        status, headers, body = client.answer()
        assert (status, headers["content-length"], body) == (200, "0", b"")
        assert "connection" not in headers
        assert "date" in headers
    scope = app.scopes[0]
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("MOVE", "1.1", "http")
    assert (scope["raw_path"], scope["query_string"]) == (b"/v1/%2e%2E/a", b"b=%20&c")
    assert scope["path"] == "/v1/../a"
    assert scope["headers"] == [(b"host", b"x"), (b"a", b"b c"), (b"a", b""), (b"b", b"\xe4")]


@pytest.mark.parametrize(
    ("target", "raw_path"),
    [
        (b"http://host/a?b", b"/a"),
        (b"HTTPS://host:1/a", b"/a"),
        (b"http://host?b", b"/"),
        (b"http://host", b"/"),
        (b"//a", b"//a"),
        (b"*", b"*"),
    ],
)
def test_forms_of_the_target(tmp_path: Path, target: bytes, raw_path: bytes) -> None:
    app = Echo()
    with serving(app, tmp_path) as served, served.client() as client:
        client.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer()[0] == 200
    assert app.scopes[0]["raw_path"] == raw_path


def test_a_head_may_come_in_any_pieces(tmp_path: Path) -> None:
    app = Echo()
    sent = b"\r\n\r\nPUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    with serving(app, tmp_path) as served, served.client() as client:
        for cut in range(1, len(sent)):
            client.send(sent[:cut])
            client.send(sent[cut:])
            assert client.answer()[2] == b"abc"
        for number in range(len(sent)):
            client.send(sent[number : number + 1])
        assert client.answer()[2] == b"abc"
    assert len(app.scopes) == len(sent)


@pytest.mark.parametrize("lines", [b"\r\n", b"\r\n\r\n", b"\r\n" * 5])
def test_empty_lines_before_a_request(tmp_path: Path, lines: bytes) -> None:
    """However they are cut into what comes at a time."""
    with serving(Echo(), tmp_path) as served, served.client() as client:
        for cut in range(len(lines) + 1):
            client.send(lines[:cut])
            time.sleep(0.03)  # so that the server sees it alone
            client.send(lines[cut:] + GET)
            assert client.answer()[0] == 200, cut


def test_another_protocol_is_not_taken_up(tmp_path: Path) -> None:
    """RFC 9110, 7.8: a server may go on as if nobody had asked."""
    ask = HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\n\r\n"
    with serving(Echo(), tmp_path) as served, served.client() as client:
        client.send(ask + GET)
        assert [client.answer()[0], client.answer()[0]] == [200, 200]


@pytest.mark.parametrize(
    ("sent", "stays"),
    [
        (HOST + b"\r\n", True),
        (HOST + b"Connection: close\r\n\r\n", False),
        (HOST + b"Connection: Keep-Alive, Close\r\n\r\n", False),
        (HOST + b"Connection: close\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_who_keeps_the_connection(tmp_path: Path, sent: bytes, stays: bool) -> None:
    app = Echo()
    with serving(app, tmp_path) as served, served.client() as client:
        client.send(sent + GET)
        client.answer()
        if stays:
            assert client.answer()[0] == 200
        else:
            assert client.rest() == b""
    assert len(app.scopes) == 1 + stays
