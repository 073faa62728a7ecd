"""Real tools on the mount, each with an assertion on its result."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.mount.test_basics import run, sow


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return sow(tmp_path / "source")


# -- copies ---------------------------------------------------------------------------------------
def test_rsync_twice_transfers_nothing(place: Path, source: Path) -> None:
    need("rsync")
    run("rsync", "-a", f"{source}/", place / "copy")
    run("diff", "-r", "--no-dereference", source, place / "copy")
    told = run("rsync", "-ai", "--stats", f"{source}/", place / "copy")
    assert "Number of regular files transferred: 0" in told


def test_tar_keeps_attributes(place: Path, source: Path, tmp_path: Path) -> None:
    os.chown(source / "one", 12, 13)
    os.chmod(source / "big", 0o4750)
    os.utime(source / "one/two", ns=(1, 1_000_000_007))
    os.link(source / "big", source / "twin")
    os.mkfifo(source / "fifo")
    run("tar", "-cf", tmp_path / "in.tar", "-C", source, ".")
    run("tar", "-xpf", tmp_path / "in.tar", "-C", place)
    assert run("tar", "-df", tmp_path / "in.tar", "-C", place) == ""
    run("tar", "-cf", place / "out.tar", "-C", place, "--exclude", "./out.tar", ".")
    (tmp_path / "back").mkdir()
    run("tar", "-xpf", place / "out.tar", "-C", tmp_path / "back")
    run("diff", "-r", "--no-dereference", source, tmp_path / "back", "-x", "fifo")
    assert (place / "twin").stat().st_ino == (place / "big").stat().st_ino


def test_cp_reflink_and_sparse(place: Path, source: Path) -> None:
    for option in ("--reflink=auto", "--sparse=always", "--preserve=all"):
        run("cp", option, source / "big", place / "copy")
        run("cp", option, place / "copy", place / "again")
        run("cmp", source / "big", place / "again")


def test_install(place: Path, source: Path) -> None:
    run("install", "-D", "-m", "0751", source / "big", place / "a/b/c")
    assert (place / "a/b/c").stat().st_mode & 0o7777 == 0o751
    run("install", "-d", "-m", "0700", place / "a/d")
    assert (place / "a/d").stat().st_mode & 0o7777 == 0o700


def test_mktemp(place: Path) -> None:
    path = Path(run("mktemp", "-p", place, "name.XXXXXX").strip())
    assert path.stat().st_mode & 0o7777 == 0o600
    folder = Path(run("mktemp", "-d", "-p", place).strip())
    assert folder.stat().st_mode & 0o7777 == 0o700


def test_split_and_cat(place: Path, source: Path) -> None:
    run("split", "-b", "200000", source / "big", place / "part-")
    parts = sorted(place.glob("part-*"))
    assert len(parts) == 16
    assert b"".join(path.read_bytes() for path in parts) == (source / "big").read_bytes()


def test_truncate_and_dd(place: Path) -> None:
    run("truncate", "-s", "1M", place / "f")
    run("dd", "if=/dev/zero", f"of={place}/f", "bs=1k", "count=3", "seek=1023", "conv=notrunc")
    assert (place / "f").stat().st_size == (1 << 20) + 2048
    run("dd", "if=/dev/urandom", f"of={place}/g", "bs=64k", "count=5", "conv=fsync")
    assert (place / "g").stat().st_size == 5 << 16


# -- editors --------------------------------------------------------------------------------------
def test_sed_in_place(place: Path) -> None:
    (place / "f").write_text("one\ntwo\n")
    (place / "f").chmod(0o640)
    run("sed", "-i.bak", "s/two/three/", place / "f")
    assert (place / "f").read_text() == "one\nthree\n"
    assert (place / "f.bak").read_text() == "one\ntwo\n"
    assert (place / "f").stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("backup", ["yes", "no"])
def test_vim(place: Path, backup: str) -> None:
    need("vim")
    (place / "file.txt").write_text("one\ntwo\n")
    (place / "file.txt").chmod(0o604)
    command = ["vim", "-u", "NONE", "-es", "-c", f"set backupcopy={backup}"]
    run(*command, "-c", "%s/two/three/", "-c", "wq", place / "file.txt")
    assert (place / "file.txt").read_text() == "one\nthree\n"
    assert (place / "file.txt").stat().st_mode & 0o7777 == 0o604
    assert os.listdir(place) == ["file.txt"]


def test_patch(place: Path) -> None:
    need("patch")
    (place / "f").write_text("one\ntwo\n")
    (place / "change").write_text("--- f\n+++ f\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n")
    run("patch", "-i", "change", cwd=place)
    assert (place / "f").read_text() == "one\nthree\n"


# -- version control, builds, packages ------------------------------------------------------------
def test_git(place: Path, source: Path) -> None:
    need("git")
    settings = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "gc.auto=0")
    run("cp", "-r", source, place / "work")
    work = place / "work"

    def git(*command: str) -> str:
        return run("git", *settings, *command, cwd=work)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    (work / "one/needle.txt").write_text("changed\n")
    git("mv", "one/two", "moved")
    git("commit", "-qam", "second")
    git("checkout", "-qb", "branch", "HEAD~1")
    git("checkout", "-q", "-")
    git("gc", "-q")
    git("fsck", "--strict")
    assert git("status", "--porcelain") == ""
    run("git", "clone", "-q", work, place / "clone")
    run("diff", "-r", "--no-dereference", "-x", ".git", work, place / "clone")


def test_make_j(place: Path) -> None:
    need("make")
    need("gcc")
    parts = [f"part{index}" for index in range(8)]
    for index, part in enumerate(parts):
        (place / f"{part}.c").write_text(f"int {part}(void) {{ return {index}; }}\n")
    calls = "+".join(f"{part}()" for part in parts)
    declared = "".join(f"int {part}(void);" for part in parts)
    (place / "main.c").write_text(f"{declared}\nint main(void) {{ return {calls} - 28; }}\n")
    objects = " ".join(f"{part}.o" for part in parts)
    (place / "Makefile").write_text(f"main: main.o {objects}\n\tgcc -o $@ $^\n")
    run("make", "-j4", cwd=place)
    assert subprocess.run([place / "main"], timeout=30, check=False).returncode == 0
    assert "up to date" in run("make", "-j4", cwd=place)


def test_dpkg_deb(place: Path, tmp_path: Path) -> None:
    need("dpkg-deb")
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: small\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\n"
        "Description: small\n"
    )
    (package / "usr/bin").mkdir(parents=True)
    (package / "usr/bin/small").write_text("#!/bin/sh\n")
    (package / "usr/bin/small").chmod(0o755)
    (package / "usr/bin/other").symlink_to("small")
    run("dpkg-deb", "--build", package, tmp_path / "small.deb")
    run("dpkg-deb", "-x", tmp_path / "small.deb", place / "root")
    assert (place / "root/usr/bin/other").readlink() == Path("small")
    assert (place / "root/usr/bin/small").stat().st_mode & 0o7777 == 0o755


def test_zip_round_trip(place: Path, source: Path) -> None:
    shutil.make_archive(str(place / "archive"), "zip", source)
    with zipfile.ZipFile(place / "archive.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(place / "unpacked")
    assert (place / "unpacked/big").read_bytes() == (source / "big").read_bytes()
    if shutil.which("unzip"):
        run("unzip", "-q", place / "archive.zip", "-d", place / "unzipped")
        run("diff", "-r", place / "unpacked", place / "unzipped")


def test_python_from_the_mount(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules, their compiled form, and a virtual environment's layout of links."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    run(sys.executable, "-m", "venv", "--without-pip", place / "env")
    (place / "package").mkdir()
    (place / "package/__init__.py").write_text("ANSWER = 42\n")
    code = "import package; print(package.ANSWER)"
    for _ in range(2):
        assert run(place / "env/bin/python", "-c", code, cwd=place) == "42\n"
    assert list((place / "package/__pycache__").glob("*.pyc"))


# -- databases ------------------------------------------------------------------------------------
@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "memory", "wal"])
def test_sqlite(place: Path, journal: str) -> None:
    """With WAL, SQLite works if shared mappings do; where they do not it stays with a journal."""
    path = place / "data.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("CREATE TABLE t (n INTEGER, text TEXT)")
        for start in range(0, 500, 100):
            rows = [(number, "x" * 200) for number in range(start, start + 100)]
            connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
            connection.commit()
        connection.execute("DELETE FROM t WHERE n % 2")
        connection.rollback()
    connection.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*), sum(n) FROM t").fetchone() == (500, 124750)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    left = {"data.db-journal"} if journal in ("truncate", "persist") else set()
    assert set(os.listdir(place)) == {"data.db"} | left


def test_sqlite_among_processes(place: Path) -> None:
    """Locks keep four writers apart."""
    path = place / "data.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
    connection.close()
    code = (
        "import sqlite3, sys\n"
        "for n in range(10):\n"
        "    c = sqlite3.connect(sys.argv[1], timeout=60)\n"
        "    with c: c.execute('INSERT INTO t VALUES (1)')\n"
        "    c.close()\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(4)]
    assert [writer.wait(100) for writer in writers] == [0] * 4
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (40,)
    connection.close()


def test_dbm_and_mailbox(place: Path) -> None:
    """Python's own users of locks and renames."""
    import dbm
    import mailbox

    with dbm.open(str(place / "db"), "c") as database:
        for index in range(100):
            database[f"key {index}"] = f"value {index}"
    with dbm.open(str(place / "db"), "r") as database:
        assert database["key 77"] == b"value 77"
    for box in (mailbox.Maildir(place / "maildir"), mailbox.mbox(place / "mbox")):
        box.lock()
        for index in range(5):
            box.add(f"Subject: {index}\n\nbody\n")
        box.flush()
        box.unlock()
        assert len(box) == 5
        box.close()
