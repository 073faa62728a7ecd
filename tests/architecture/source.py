"""Reads the imports of our packages from their source, without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"filesfs": ROOT / "filesfs", "files_server": ROOT / "server" / "files_server"}


@dataclass(frozen=True)
class Module:
    """One source file, and the modules that it imports, by full name, wherever in the file."""

    name: str
    path: Path
    imports: frozenset[str]

    @property
    def shown(self) -> str:
        return str(self.path.relative_to(ROOT))


def modules(package: str) -> list[Module]:
    """Every module of a package."""
    paths = sorted(SOURCES[package].rglob("*.py"))
    names = {_name(package, path): path for path in paths}
    return [
        Module(name, path, frozenset(_imports(name, path, names))) for name, path in names.items()
    ]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file, with its length in lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.name, node.end_lineno - node.lineno + 1


def _name(package: str, path: Path) -> str:
    relative = path.relative_to(SOURCES[package]).with_suffix("")
    return ".".join((package, *relative.parts)).removesuffix(".__init__")


def _imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(name, path, node)
            for alias in node.names:
                # `from package import module` and `from module import name` both name a module
                full = f"{origin}.{alias.name}"
                yield full if full in known else origin


def _origin(name: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join((*base, node.module) if node.module else base)
