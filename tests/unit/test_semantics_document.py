"""docs/SEMANTICS.md names a test for each promise; each of them must exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "SEMANTICS.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"\[(tests/[\w/]+\.py)::(\w+)\]", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_named_test_exists(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    assert test in functions


def test_each_promise_names_a_test() -> None:
    promises = TEXT.split("## Promises")[1].split("\n## ")[0]
    lines = [line for line in promises.splitlines() if line.startswith("- ")]
    assert len(lines) > 20
    assert [line for line in lines if "[tests/" not in line] == []
