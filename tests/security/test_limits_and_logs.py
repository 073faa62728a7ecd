"""What one request may cost, and what a log line may tell."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from starlette.exceptions import HTTPException

from files_server.asgi import Message, Receive, Scope, Send
from files_server.limits import BodyLimits
from files_server.logs import TOKEN_NAME, Lines, RequestLog
from tests.security.asgi import ask, replying, scope


def test_json_that_says_it_is_too_long_is_refused_unread() -> None:
    limited = BodyLimits(replying(), 1024)
    answer = ask(limited, "POST", "/v1/files", {"Content-Length": "1025"}, [])
    assert answer.status == 413
    assert "1024" in answer.detail


def test_json_that_grows_too_long_is_refused() -> None:
    limited = BodyLimits(replying(), 1024)
    with pytest.raises(HTTPException) as refused:  # the application's error shape answers it
        ask(limited, "PATCH", "/v1/files/b/k", {}, [b"x" * 600, b"x" * 600])
    assert refused.value.status_code == 413


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/files/session:abc"), ("PUT", "/files/b/k?alt=media")]
)
def test_content_may_be_long(method: str, path: str) -> None:
    assert ask(BodyLimits(replying(), 1024), method, path, {}, [b"x" * 5000]).status == 200


def test_a_body_that_stops_arriving_is_a_lost_connection() -> None:
    async def run() -> str:
        seen: list[str] = []

        async def app(request: Scope, receive: Receive, send: Send) -> None:
            seen.append((await receive())["type"])

        async def silence() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None: ...

        limited = BodyLimits(app, 1024, idle_seconds=0.01)
        await limited(scope("POST", "/files/session:abc"), silence, send)
        return seen[0]

    assert asyncio.run(run()) == "http.disconnect"


def _logged(method: str, path: str, headers: dict[str, str]) -> str:
    lines: list[str] = []

    async def app(request: Scope, receive: Receive, send: Send) -> None:
        request[TOKEN_NAME] = "ann"
        await replying()(request, receive, send)

    ask(RequestLog(app, write=lines.append), method, path, headers)
    assert len(lines) == 1
    return lines[0]


def test_a_request_is_one_line_of_json() -> None:
    line = _logged("GET", "/v1/files/b/k", {})
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    record = json.loads(line)
    assert record.pop("ms") >= 0
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "info",
        "method": "GET",
        "path": "/v1/files/b/k",
        "status": 200,
        "bytes": 2,
        "token": "ann",
    }


def test_a_line_tells_no_secret() -> None:
    headers = {"Authorization": "Bearer s3cret"}
    line = _logged("GET", "/v1/files/b/k?alt=media&signature=s3cret", headers)
    assert "s3cret" not in line
    for path in ("/v1/files/session:abcdefs3cret", "/v1/files/session%3Aabcdefs3cret"):
        assert "s3cret" not in _logged("POST", path, headers)


def test_a_path_cannot_forge_a_line() -> None:
    line = _logged("GET", '/v1/files/b/"}\n{"level":"error', {})
    assert line.count("\n") == 1
    assert json.loads(line)["level"] == "info"


def test_lines_are_written_in_order_and_all_of_them_by_the_end() -> None:
    written: list[str] = []
    lines = Lines(written.append)
    for number in range(100):
        lines.add(f"{number}\n")
    lines.close()
    assert "".join(written).split() == [str(number) for number in range(100)]


def test_a_log_that_nobody_reads_holds_no_request_up_and_says_what_it_left_out() -> None:
    written: list[str] = []
    go_on = threading.Event()

    def stuck(text: str) -> None:
        go_on.wait(10)
        written.append(text)

    lines = Lines(stuck)
    for _ in range(25_000):
        lines.add("x\n")  # returns, however many there are
    go_on.set()
    lines.close()
    told = "".join(written).splitlines()
    kept = told.count("x")
    assert 10_000 <= kept < 25_000
    left_out = [json.loads(line)["message"] for line in told if line != "x"]
    assert sum(int(message.split()[0]) for message in left_out) == 25_000 - kept
