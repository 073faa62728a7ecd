"""Whatever fits the published description is answered as it says, and never by a crash.

Schemathesis makes the requests from /openapi.json; a fixed seed keeps them the same, and their
number is small: a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.server.running import running_server

STATUSES = {200, 206, 304, *(400, 401, 403, 404, 405, 409, 410, 412, 413, 416, 429, 501, 503, 507)}
_REQUEST_SECONDS = 10


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    with running_server(folder / "data") as server:
        httpx.put(f"{server.url}/v1/files/0/0?alt=media", content=b"x").raise_for_status()
        yield server.url


OPERATIONS = [
    "create_upload_session",
    "upload_content_to_session",
    "get_upload_session_info",
    "list_all_buckets",
    "list_files_in_bucket",
    "get_file",
    "delete_file",
    "register_bucket",
    "register_bucket_file",
]


@pytest.fixture(scope="module")
def operations(server_url: str) -> dict[str, Any]:
    """The described operations by their ids."""
    schema = schemathesis.openapi.from_url(f"{server_url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.definition.raw["operationId"]: operation for operation in found}


def test_the_nine_operations_are_described(operations: dict[str, Any]) -> None:
    assert set(operations) >= set(OPERATIONS)


@pytest.mark.parametrize("name", [*OPERATIONS, "undelete_file", "read_contents"])
def test_requests_that_fit_the_description(
    name: str, operations: dict[str, Any], server_url: str
) -> None:
    @given(case=operations[name].as_strategy())
    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        _check(case, server_url)

    ask()


def _check(case: schemathesis.Case, server_url: str) -> None:
    response = case.call(base_url=server_url, timeout=_REQUEST_SECONDS)
    assert response.status_code in STATUSES, (response.status_code, response.text)
    if response.status_code >= 400 and case.method != "HEAD":
        body = response.json()
        assert set(body) == {"status", "title", "detail"}
        assert body["status"] == response.status_code
        assert isinstance(body["detail"], str)
        assert body["detail"]
    documented = case.operation.definition.raw["responses"]
    assert {str(response.status_code), "default"} & set(documented), response.status_code
