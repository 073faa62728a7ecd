"""Op 1 with an Idempotency-Key: asked for again because the answer was lost, it is one session."""

from __future__ import annotations

from typing import Any

import httpx

KEY = {"Idempotency-Key": "kq2vJc1rS0uYbG5hX8dTzA"}


def open_session(client: httpx.Client, body: dict[str, Any], **headers: str) -> httpx.Response:
    return client.post("/files", json=body, headers={**KEY, **headers})


def wish(bucket: str, **fields: Any) -> dict[str, Any]:
    return {"bucket": bucket, "key": "k", "mime_type": "text/plain", "size": 3, **fields}


def test_the_same_key_is_the_same_session(client: httpx.Client, bucket: str) -> None:
    first = open_session(client, wish(bucket)).json()
    again = open_session(client, wish(bucket)).json()
    assert again == first
    client.post(first["url"], content=b"ab", headers={"Upload-Offset": "0"}).raise_for_status()
    assert open_session(client, wish(bucket)).json()["offset"] == 2
    other = client.post("/files", json=wish(bucket)).json()
    assert other["id"] != first["id"]


def test_another_upload_with_the_same_key_is_refused(client: httpx.Client, bucket: str) -> None:
    key = {"Idempotency-Key": f"{bucket}-0123456789"}
    open_session(client, wish(bucket), **key).raise_for_status()
    assert open_session(client, wish(bucket, key="other"), **key).status_code == 409
    assert open_session(client, wish(bucket, size=4), **key).status_code == 409


def test_an_unknown_length_stays_the_same_session(client: httpx.Client, bucket: str) -> None:
    headers = {"Idempotency-Key": f"{bucket}-0123456789", "Upload-Defer-Length": "1"}
    first = open_session(client, wish(bucket, size=0), **headers).json()
    assert open_session(client, wish(bucket, size=0), **headers).json()["id"] == first["id"]
