"""The command line without a server: exit codes, and one line for each mistake."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from filesfs import __version__, cli, notify, options
from filesfs.commands import mount_table
from filesfs.commands.mount_table import Mounted, filesfs_mounts
from filesfs.errors import UsageError

URL = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FILESFS_CONFIG", "/dev/null")
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["version"]) == 0
    assert capsys.readouterr().out == f"filesfs {__version__}\n"
    assert cli.run(["--help"]) == 0
    assert "umount" in capsys.readouterr().out
    assert cli.run([]) == 2


def test_options_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["options"]) == 0
    out = capsys.readouterr().out
    for name in ("ro", "cache_size=SIZE", "token_file=FILE", "nodev"):
        assert name in out


def test_the_readme_has_every_option() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    missing = [name for name in options.known() if f"`{name.partition('=')[0]}" not in readme]
    assert missing == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["mount", URL], 2, "Missing argument"),
        (["mount", "x", "/mnt"], 2, "names no server"),
        (["mount", URL, "/mnt", "-o", "zz"], 2, "unknown option 'zz'"),
        (["mount", URL, "/does/not/exist"], 32, "mkdir -p /does/not/exist"),
        (["mount", URL, "/etc/hostname"], 32, "is no directory"),
        (["mount", URL, "/etc"], 32, "is not empty"),
        (["mount", URL, "/proc"], 32, "is in use"),
        (["mount", "--zz"], 2, "No such option"),
        (["umount", "/etc"], 32, "no filesfs is mounted on /etc"),
        (["status", "/etc"], 1, "no filesfs is mounted on /etc"),
        (["token", "a!"], 2, "the name"),
        (["zz"], 2, "No such command"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.startswith("filesfs: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([URL], 1, "needs SOURCE and DIR"),
        ([URL, "/mnt", "-q"], 1, "-q"),
        ([URL, "/mnt", "-o", "rw,zz"], 1, "unknown option"),
        ([URL, "/does/not/exist", "-o", "rw"], 32, "does not exist"),
    ],
)
def test_the_helper_of_mount_has_the_exit_codes_of_mount(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_helper(arguments) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("mount.filesfs: ")


@pytest.mark.parametrize("source", ["http://127.0.0.1:{port}", "unix:/does/not/exist"])
def test_a_server_that_is_not_there_is_told_at_once(
    source: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unheard:  # bound, so that nobody else takes the port; not listening
        unheard.bind(("127.0.0.1", 0))
        text = source.format(port=unheard.getsockname()[1])
        for flags in ([], ["-f"]):
            assert cli.run(["mount", *flags, text, str(empty)]) == 32
            assert "no server answers at" in capsys.readouterr().err


def test_the_helper_can_pretend(empty: Path) -> None:
    assert cli.run_helper([URL, str(empty), "-f", "-o", "rw,_netdev"]) == 0
    assert not empty.is_mount()


def test_a_dead_mount_that_is_none_is_left_alone(empty: Path) -> None:
    assert cli.run(["umount", "--dead", str(empty)]) == 0
    assert empty.is_dir()


def test_a_token_and_its_line_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["token", "laptop", "--rights", "read", "--buckets", "docs,a-*"]) == 0
    out = capsys.readouterr().out
    assert "laptop sha256:" in out
    assert out.rstrip().endswith("read docs,a-*")


def test_the_mount_table_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "90 22 0:50 / /mnt/with\\040space rw shared:9 - fuse.filesfs http://h:1/b rw,user_id=0\n"
        "91 22 0:51 / /mnt/b rw - fuse.filesfs unix:/run/a\\134b rw\n"
        "92 22 0:52 / /mnt/c rw - fuse.sshfs host: rw\n"
    )
    assert filesfs_mounts(table) == [
        Mounted("http://h:1/b", Path("/mnt/with space"), "0:50"),
        Mounted("unix:/run/a\\b", Path("/mnt/b"), "0:51"),
    ]


@pytest.mark.parametrize(
    ("said", "says"),
    [("umount: /x: target is busy.", "fuser -vm"), ("umount: /x: not mounted.", "not mounted")],
)
def test_why_unmounting_failed(
    said: str, says: str, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 32, "", said)

    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(UsageError, match=says):
        mount_table.detach(empty)


def test_notify_sends_what_systemd_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.ready("serving")
        assert listening.recv(100) == b"READY=1\nSTATUS=serving"
        notify.stopping()
        assert listening.recv(100) == b"STOPPING=1"
        notify.watchdog()
        assert listening.recv(100) == b"WATCHDOG=1"


def test_notify_does_nothing_where_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notify.ready()
    assert notify.watchdog_seconds() is None
    monkeypatch.setenv("NOTIFY_SOCKET", "/does/not/exist")
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    notify.ready()
    assert notify.watchdog_seconds() == 1.5


@pytest.mark.parametrize(
    ("arguments", "code"), [(["fsck", "{}", "--digests"], 2), (["backup", "{}", "{}/copy"], 1)]
)
def test_what_is_no_data_folder_is_neither_checked_nor_copied(
    arguments: list[str], code: int, empty: Path
) -> None:
    words = [word.format(empty) for word in arguments]
    command = [sys.executable, "-m", "filesfs.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert done.stderr == (
        f"filesfs {words[0]}: {empty} is no data folder: it has no catalog.sqlite\n"
    )
    assert list(empty.iterdir()) == []
