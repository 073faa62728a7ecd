"""pip and virtual environments on the mount: what is installed there runs there. No network."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_basics import run

NAME = "greeter"
METADATA = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n"
MODULE = "def main():\n    print('hello from ' + __file__)\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
FILES = {
    f"{NAME}/__init__.py": MODULE,
    f"{NAME}-1.0.dist-info/METADATA": METADATA,
    f"{NAME}-1.0.dist-info/WHEEL": WHEEL,
    f"{NAME}-1.0.dist-info/entry_points.txt": f"[console_scripts]\ngreet = {NAME}:main\n",
}
# A build backend of its own, so that pip has nothing to fetch: it packs the wheel that lies there.
BACKEND = """
import os, shutil
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = [name for name in os.listdir(".") if name.endswith(".whl")][0]
    shutil.copy(name, folder)
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "install", "--no-index")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the machine's own settings for pip, and compiled modules as usual."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_ROOT_USER_ACTION", "ignore")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)


def _record() -> Iterator[str]:
    for path, text in FILES.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        yield f"{path},sha256={digest.rstrip(b'=').decode()},{len(text)}\n"
    yield f"{NAME}-1.0.dist-info/RECORD,,\n"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
        archive.writestr(f"{NAME}-1.0.dist-info/RECORD", "".join(_record()))
    return path


@pytest.fixture
def sdist(tmp_path: Path, wheel: Path) -> Path:
    folder = tmp_path / f"{NAME}-1.0"
    folder.mkdir()
    (folder / "PKG-INFO").write_text(METADATA)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    path = tmp_path / f"{NAME}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_pip_installs_into_a_folder(
    place: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    monkeypatch.setenv("TMPDIR", str(place))  # what pip unpacks and builds is on the mount too
    package = request.getfixturevalue(kind)
    run(sys.executable, *PIP, "--target", place / "lib", package)
    monkeypatch.setenv("PYTHONPATH", str(place / "lib"))
    found = run(sys.executable, "-c", f"import {NAME}; {NAME}.main()", cwd=place)
    assert found == f"hello from {place}/lib/{NAME}/__init__.py\n"
    assert run(place / "lib/bin/greet") == found
    assert os.listdir(place) == ["lib"]
    run(sys.executable, *PIP, "--upgrade", "--target", place / "lib", package)
    assert run(place / "lib/bin/greet") == found


@pytest.mark.timeout(300)
def test_a_virtual_environment_on_the_mount(place: Path, wheel: Path) -> None:
    run(sys.executable, "-m", "venv", place / "env")
    python = place / "env/bin/python"
    run(python, *PIP, wheel)
    told = run(place / "env/bin/greet")
    assert told.startswith(f"hello from {place}/env/lib/")
    run(python, "-m", "pip", "--disable-pip-version-check", "check")
    run(python, "-m", "pip", "uninstall", "-y", NAME)
    assert not (place / "env/bin/greet").exists()
    assert not list((place / "env").rglob(f"{NAME}*"))
