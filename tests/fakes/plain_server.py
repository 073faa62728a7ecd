"""A Files server in memory, over a real socket, that knows the published API and nothing else.

It must not know a single extension: it shows that the mount works with any server of the API.

    with PlainServer() as server:
        ...  server.url, server.files, server.honour_range = False, server.token = "secret"
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_KEY = re.compile(r"[A-Za-z0-9_\-/.]{1,16384}\Z")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")


@dataclass
class StoredFile:
    mime_type: str
    content: bytes
    created_at: int


@dataclass
class Session:
    bucket: str
    key: str
    mime_type: str
    size: int
    content: bytearray = field(default_factory=bytearray)
    complete: bool = False


class _Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class PlainServer:
    """Owner of the buckets, files and sessions; one lock around each operation."""

    def __init__(self, *, honour_range: bool = True, token: str | None = None) -> None:
        self.files: dict[str, dict[str, StoredFile]] = {}
        self.created: dict[str, int] = {}
        self.sessions: dict[str, Session] = {}
        self.honour_range = honour_range
        self.token = token
        self.url_query = ""  # what a signed url ends with, "?signature=..."
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        server = self

        class Handler(_Handler):
            owner = server

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> PlainServer:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join(5)

    # -- the nine operations (and content behind `url`) -------------------------------------------
    def create_session(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise _Refused(400, "The body is no JSON object.")
        bucket, key = _checked(body.get("bucket"), body.get("key"))
        size = body.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise _Refused(400, f"The size {size!r} is no integer from 0 on.")
        mime_type = body.get("mime_type")
        if not isinstance(mime_type, str) or len(mime_type) > 255 or _has_control(mime_type):
            raise _Refused(400, f"The mime_type {mime_type!r} is not up to 255 plain characters.")
        self._check_tree(bucket, key)
        session_id = secrets.token_urlsafe(16)
        self.sessions[session_id] = Session(bucket, key, mime_type, size)
        return self.show_session(session_id)

    def show_session(self, session_id: str) -> dict[str, Any]:
        session = self._session(session_id)
        url = f"{self.url}/v1/files/session:{session_id}"
        return {
            "id": session_id,
            "url": url,
            "offset": len(session.content),
            "size": session.size,
        }

    def append(self, session_id: str, data: bytes) -> dict[str, Any] | None:
        session = self._session(session_id)
        if session.complete:
            if data and not session.content.endswith(data):
                raise _Refused(409, "The upload is complete.")
            return self.show(session.bucket, session.key)
        left = session.size - len(session.content)
        if len(data) > left:
            raise _Refused(413, f"{len(data)} bytes are more than the {left} that are left.")
        session.content += data
        if len(session.content) < session.size:
            return None
        self._check_tree(session.bucket, session.key)
        session.complete = True
        self.register_bucket(session.bucket)
        stored = StoredFile(session.mime_type, bytes(session.content), int(time.time()))
        self.files[session.bucket][session.key] = stored
        return self.show(session.bucket, session.key)

    def list_buckets(self) -> dict[str, Any]:
        return {"data": [{"name": name} for name in sorted(self.files)]}

    def list_files(self, bucket: str) -> dict[str, Any]:
        return {"data": [self.show(bucket, key) for key in sorted(self._bucket(bucket))]}

    def show(self, bucket: str, key: str) -> dict[str, Any]:
        stored = self._file(bucket, key)
        return {
            "bucket": bucket,
            "key": key,
            "mime_type": stored.mime_type,
            "url": f"{self.url}/content/{bucket}/{key}{self.url_query}",
            "bytes": len(stored.content),
            "created_at": stored.created_at,
        }

    def delete(self, bucket: str, key: str) -> None:
        self._file(bucket, key)
        del self.files[bucket][key]

    def register_bucket(self, bucket: str) -> dict[str, Any]:
        if not _BUCKET.match(bucket):
            raise _Refused(400, f"{bucket!r} is no bucket name.")
        self.files.setdefault(bucket, {})
        created = self.created.setdefault(bucket, int(time.time()))
        return {"bucket": bucket, "created_at": created, "status": "available"}

    def content(self, bucket: str, key: str) -> bytes:
        return self._file(bucket, key).content

    def _session(self, session_id: str) -> Session:
        if session_id not in self.sessions:
            raise _Refused(404, f"There is no upload session {session_id!r}.")
        return self.sessions[session_id]

    def _bucket(self, bucket: str) -> dict[str, StoredFile]:
        if bucket not in self.files:
            raise _Refused(404, f"There is no bucket {bucket!r}.")
        return self.files[bucket]

    def _file(self, bucket: str, key: str) -> StoredFile:
        if key not in self._bucket(bucket):
            raise _Refused(404, f"There is no file {key!r} in {bucket!r}.")
        return self.files[bucket][key]

    def _check_tree(self, bucket: str, key: str) -> None:
        for each in self.files.get(bucket, {}):
            if each.startswith(f"{key}/") or key.startswith(f"{each}/"):
                raise _Refused(409, f"{key!r} and {each!r} cannot both be files.")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake the threads that wait on idle connections."""
        for each in list(self._open):
            try:
                each.shutdown(2)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the client's affair."""


class _Handler(BaseHTTPRequestHandler):
    owner: PlainServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """No log."""

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if len(body) < int(self.headers.get("Content-Length") or 0):
            self.close_connection = True  # it ended short: nothing of it counts
            return
        with self.owner.lock:
            self.owner.requests.append((self.command, self.path))
            try:
                self._authorize()
                status, answer, headers = self._route(body)
            except _Refused as refused:
                status, headers = refused.status, {}
                title = HTTPStatus(status).phrase
                answer = {"status": status, "title": title, "detail": str(refused)}
        self._send(status, answer, headers)

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_HEAD = _respond  # noqa: N815

    def _send(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _authorize(self) -> None:
        given = self.headers.get("Authorization")
        if self.owner.token is not None and given != f"Bearer {self.owner.token}":
            raise _Refused(401, "There is no valid token in Authorization.")

    def _route(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        segments = self.path.partition("?")[0].lstrip("/").split("/")
        if segments[0] == "content" and self.command == "GET":
            return self._content(*_checked(segments[1], "/".join(segments[2:])))
        if segments[0] == "v1":
            del segments[0]
        if segments[0] != "files":
            raise _Refused(404, "There is no such path.")
        rest = [unquote(segment) for segment in segments[1:]]
        if rest and not rest[-1] and len(rest) <= 2:
            rest.pop()
        return 200, self._operation(rest, body), {}

    def _operation(self, rest: list[str], body: bytes) -> Any:
        owner, command = self.owner, self.command
        if not rest:
            if command == "POST":
                return owner.create_session(_parsed(body))
            return owner.list_buckets() if command == "GET" else self._refuse_method()
        if rest[0].startswith("session:"):
            return self._session(rest, body)
        if len(rest) == 1:
            return self._bucket(rest[0])
        bucket, key = _checked(rest[0], "/".join(rest[1:]))
        if command == "GET":
            return owner.show(bucket, key)
        if command == "DELETE":
            return owner.delete(bucket, key)
        if command == "PUT":
            raise _Refused(501, "Registered files are not supported here.")
        return self._refuse_method()

    def _session(self, rest: list[str], body: bytes) -> Any:
        session_id = "/".join(rest).removeprefix("session:")
        if self.command == "POST":
            return self.owner.append(session_id, body)
        if self.command == "GET":
            return self.owner.show_session(session_id)
        return self._refuse_method()

    def _bucket(self, bucket: str) -> Any:
        if "://" in bucket:
            raise _Refused(501, f"The storage of {bucket!r} is not supported here.")
        if self.command == "PUT":
            return self.owner.register_bucket(bucket)
        return self.owner.list_files(bucket) if self.command == "GET" else self._refuse_method()

    def _refuse_method(self) -> Any:
        raise _Refused(405, f"{self.command} is not possible here.")

    def _content(self, bucket: str, key: str) -> tuple[int, bytes, dict[str, str]]:
        content = self.owner.content(bucket, key)
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if not self.owner.honour_range or wanted is None:
            return 200, content, {}
        start = int(wanted.group(1))
        end = min(int(wanted.group(2) or len(content)) + 1, len(content))
        if start >= len(content):
            raise _Refused(416, f"The range begins at {start} of {len(content)} bytes.")
        return 206, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}


def _checked(bucket: Any, key: Any) -> tuple[str, str]:
    if not isinstance(bucket, str) or not _BUCKET.match(bucket):
        raise _Refused(400, f"The bucket name {bucket!r} is not 1 to 255 of A-Z a-z 0-9 _ -.")
    segments = key.split("/") if isinstance(key, str) else [""]
    if not isinstance(key, str) or not _KEY.match(key) or {"", ".", ".."} & set(segments):
        raise _Refused(400, f"The key {key!r} is not of segments of A-Z a-z 0-9 _ - .")
    return bucket, key


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise _Refused(400, f"The body is no JSON: {error}") from error


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)
