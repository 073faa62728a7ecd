"""Sources, options, sizes, times, the settings file and the token: what is read, and what is said
about what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from filesfs import options
from filesfs.config import MountSettings, Source, load
from filesfs.domain import Location
from filesfs.errors import UsageError

HERE = Path("/mnt/files")
URL = "http://localhost:8321"


def settings(*given: str, **variables: str) -> MountSettings:
    """Settings of a mount in an environment that holds nothing else."""
    return load(URL, HERE, given, {"FILESFS_CONFIG": "/dev/null", **variables})


@pytest.mark.parametrize(
    ("text", "url", "socket", "root"),
    [
        ("http://localhost:8321", "http://localhost:8321", None, Location("")),
        ("http://localhost:8321/", "http://localhost:8321", None, Location("")),
        ("https://files.example/b", "https://files.example", None, Location("b")),
        ("http://[::1]:80/b/c/d.e", "http://[::1]:80", None, Location("b", "c/d.e")),
        ("http://h:1/b/c/", "http://h:1", None, Location("b", "c")),
        ("unix:/run/f.sock", "http://localhost", Path("/run/f.sock"), Location("")),
        ("unix:/run/f.sock:/b", "http://localhost", Path("/run/f.sock"), Location("b")),
        ("unix:/r:1/f:/b/c/d", "http://localhost", Path("/r:1/f"), Location("b", "c/d")),
    ],
)
def test_sources(text: str, url: str, socket: Path | None, root: Location) -> None:
    assert Source.parse(text) == Source(url, socket, root)


@pytest.mark.parametrize("text", ["http://h:1", "https://h/b/c", "unix:/s", "unix:/s:/b/c"])
def test_a_source_reads_as_it_was_written(text: str) -> None:
    assert str(Source.parse(text)) == text


def test_a_relative_socket_is_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Source.parse("unix:a/s.sock").socket == tmp_path / "a/s.sock"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("localhost:8321", "did you mean http://localhost:8321?"),
        ("/run/f.sock", "did you mean unix:/run/f.sock?"),
        ("ftp://h/b", "names no server"),
        ("http://", "names no server"),
        ("http://h:port", "is no URL"),
        ("http://h:99999", "is no URL"),
        ("http://me:secret@h:1", "token_file"),
        ("http://h:1/b?x=1", "no '?'"),
        ("http://h:1/b.c", "the bucket 'b.c'"),
        ("http://h:1/b/../c", "'..'"),
        ("http://h:1/b/c d", "'c d'"),
        ("unix:", "names no socket"),
        ("", "names no server"),
    ],
)
def test_wrong_sources(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        Source.parse(text)
    message = str(raised.value)
    assert says in message
    assert "\n" not in message
    assert "secret" not in message


def test_without_options() -> None:
    found = settings()
    assert (found.read_only, found.allow_other, found.default_permissions) == (False, False, True)
    assert (found.cache_size, found.disk_cache, found.timeout) == (256 << 20, 0, 30.0)
    assert found.fuse_options() == (f"fsname={URL}", "subtype=filesfs", "default_permissions")


def test_options_of_ours_and_the_kernels() -> None:
    found = settings("ro,noexec,allow_other,umask=077,uid=7", "cache_size=1G,timeout=500ms")
    assert found.read_only
    assert (found.umask, found.uid, found.cache_size, found.timeout) == (0o77, 7, 1 << 30, 0.5)
    assert {"ro", "noexec", "allow_other"} <= set(found.fuse_options())


def test_the_last_of_two_counts() -> None:
    assert not settings("ro", "rw").read_only
    assert not settings("no_default_permissions").default_permissions
    assert settings("no_default_permissions,default_permissions").default_permissions


def test_what_mount_passes_for_itself_is_no_error() -> None:
    line = "rw,defaults,noauto,nofail,_netdev,user,x-systemd.automount,comment=a,relatime"
    assert settings(line) == settings()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("cache_sizes=1", "did you mean cache_size?"),
        ("zzz", "there are: ro, rw, allow_other"),
        ("remount", "filesfs umount, then mount"),
        ("cache_size", "needs a value: cache_size=SIZE"),
        ("cache_size=", "needs a value"),
        ("cache_size=lots", "as in 256M"),
        ("cache_size=-1", "as in 256M"),
        ("timeout=1d", "as in 500ms"),
        ("umask=888", "octal"),
        ("uid=root", "id -u NAME"),
        ("uid=4294967295", "4294967294"),
        ("names=maybe", "escape or strict"),
        ("conflict=x", "last or fail"),
        ("cache_dir=relative", "absolute"),
        ("ro=1", "takes no value"),
        ("cert_file=/x", "needs key_file"),
        ("token_file=/does/not/exist", "No such file"),
    ],
)
def test_wrong_options(given: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        settings(given)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "bytes_"), [("0", 0), ("10", 10), ("4k", 4096), ("1MiB", 1 << 20), ("2T", 2 << 40)]
)
def test_sizes(text: str, bytes_: int) -> None:
    assert options.size(text) == bytes_


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("0.5", 0.5), ("2m", 120), ("20ms", 0.02)])
def test_times(text: str, value: float) -> None:
    assert options.seconds(text) == value


def test_the_settings_file_counts_less_than_the_environment_and_that_less_than_o(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('ro = true\nuid = 1\ngid = 1\ncache_size = "1M"\nxattr = false\n')
    found = settings("uid=3", FILESFS_CONFIG=str(file), FILESFS_OPTIONS="uid=2,gid=2")
    assert (found.read_only, found.uid, found.gid, found.cache_size) == (True, 3, 2, 1 << 20)
    assert not found.xattr


@pytest.mark.parametrize(
    ("content", "says"),
    [("ro = ", "is not TOML"), ("zz = 1", "unknown option 'zz'"), ("uid = [1]", "neither text")],
)
def test_wrong_settings_files_are_named(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(content)
    with pytest.raises(UsageError) as raised:
        settings(FILESFS_CONFIG=str(file))
    assert str(file) in str(raised.value)
    assert says in str(raised.value)


def test_the_token_comes_from_a_file_or_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t0ken\n")
    file.chmod(0o600)
    assert settings(FILESFS_TOKEN="other").token == "other"
    found = settings(f"token_file={file}", FILESFS_TOKEN="other")
    assert found.token == "t0ken"
    assert found.backend_settings().token == "t0ken"
    assert "t0ken" not in repr(found)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [("t", 0o644, "chmod 600"), ("two words", 0o600, "alone"), ("", 0o600, "alone")],
)
def test_wrong_token_files(tmp_path: Path, content: str, mode: int, says: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(UsageError) as raised:
        settings(f"token_file={file}")
    assert says in str(raised.value)


def test_each_source_and_mount_point_has_a_cache_folder_of_its_own() -> None:
    empty = {"FILESFS_CONFIG": "/dev/null", "CACHE_DIRECTORY": "/c"}
    folders = {
        load(source, Path(at), [], empty).cache_dir
        for source in ("http://a:1", "http://a:1/b")
        for at in ("/mnt/1", "/mnt/2", "/mnt/../mnt/2")
    }
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {Path("/c")}


def test_a_comma_in_a_source_does_not_end_the_option() -> None:
    found = load("unix:/a,b", HERE, [], {"FILESFS_CONFIG": "/dev/null"})
    assert "fsname=unix:/a\\,b" in found.fuse_options()


@pytest.mark.parametrize(
    ("given", "user", "enforced"),
    [
        (("xattr",), 0, True),
        ((), 0, False),
        (("xattr", "no_default_permissions"), 0, False),
        (("xattr",), 1000, False),
    ],
)
def test_access_control_lists_are_roots_with_xattr(
    given: tuple[str, ...], user: int, enforced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert settings(*given).acl is enforced
