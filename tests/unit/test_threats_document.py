"""docs/THREATS.md names what holds each threat; each test named there must exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "THREATS.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.split("## The server")[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| threat", "| ---"))
]


def _named(cell: str) -> list[tuple[str, str]]:
    """(file, beginning of a test's name; "" for the whole file) of the last column."""
    named = []
    for part in cell.split(";"):
        file, _, tests = part.strip().partition(": ")
        path = file if "/" in file else f"tests/security/{file}"
        named += [(path, test.strip().rstrip("*")) for test in tests.split(",")]
    return named


NAMED = sorted({pair for row in ROWS for pair in _named(row[-1])})


def test_each_threat_names_a_test() -> None:
    assert len(ROWS) > 20
    assert [row[0] for row in ROWS if not re.search(r"\btest_\w+\.py\b", row[-1])] == []


@pytest.mark.parametrize(("file", "beginning"), NAMED)
def test_a_named_test_exists(file: str, beginning: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [name for name in names if name.startswith(f"test_{beginning}")]
