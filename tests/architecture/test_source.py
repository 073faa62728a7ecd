"""The reader of imports sees each form of import: else the arrows would hold by blindness."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import source

SAMPLE = """
import httpx._client
from pkg import b
from pkg.a import Thing
from . import b as again
from .sub import deep

def f():
    import lazy
    if TYPE_CHECKING:
        from typed import T
"""


def test_every_form_of_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("__init__", "a", "b", "sub/__init__", "sub/deep"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "m.py").write_text(SAMPLE)
    (tmp_path / "sub" / "deep.py").write_text("from .. import a\nfrom ..b import x\n")
    monkeypatch.setitem(source.SOURCES, "pkg", tmp_path)
    found = {module.name: set(module.imports) for module in source.modules("pkg")}
    assert found["pkg.m"] == {"httpx._client", "pkg.b", "pkg.a", "pkg.sub.deep", "lazy", "typed"}
    assert found["pkg.sub.deep"] == {"pkg.a", "pkg.b"}
    assert dict(source.functions(tmp_path / "m.py")) == {"f": 4}
