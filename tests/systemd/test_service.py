"""The services under a real systemd: they start, survive kill -9, and lose nothing at a stop."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, booted, install, wait_for

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(240),  # installing compiles pyfuse3
    pytest.mark.skipif(
        os.getuid() != 0
        or not Path("/lib/systemd/systemd").exists()
        or not shutil.which("nsenter"),
        reason="needs root and systemd",
    ),
]
SOURCE = "/usr/lib/python3.11/email"  # some real files; Debian's own Python has them


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    install(folder)
    with booted(folder) as running:
        yield running


def test_both_services_start_and_the_mount_answers(machine: Machine) -> None:
    machine.run("mkdir", "/mnt/files/started")
    machine.run("cp", "-r", SOURCE, "/mnt/files/started/")
    machine.run("diff", "-r", SOURCE, "/mnt/files/started/email")
    assert "fuse.filesfs" in machine.run("findmnt", "-no", "FSTYPE", "/mnt/files")


def test_the_mount_is_back_after_kill_9_and_the_files_are_whole(machine: Machine) -> None:
    machine.run("mkdir", "/mnt/files/mount-killed")
    machine.run("cp", "-r", SOURCE, "/mnt/files/mount-killed/")
    before = machine.main_pid("filesfs")
    machine.run("kill", "-9", before)
    machine.wait_active("filesfs", not_pid=before)
    machine.run("diff", "-r", SOURCE, "/mnt/files/mount-killed/email")


def test_the_server_is_back_after_kill_9_and_the_mount_stays(machine: Machine) -> None:
    machine.run("mkdir", "/mnt/files/server-killed")
    machine.run("cp", "-r", SOURCE, "/mnt/files/server-killed/")
    server, mount = machine.main_pid("filesfs-server"), machine.main_pid("filesfs")
    machine.run("kill", "-9", server)
    machine.wait_active("filesfs-server", not_pid=server)
    machine.run("diff", "-r", SOURCE, "/mnt/files/server-killed/email")
    machine.run("cp", "/etc/hostname", "/mnt/files/server-killed/after")
    assert machine.main_pid("filesfs") == mount


def test_a_mount_that_hangs_is_restarted(machine: Machine) -> None:
    """Only one that hangs: it reports to systemd's watchdog while it lives."""
    folder = "/run/systemd/system/filesfs.service.d"
    lines = "[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\n"  # a stopped process ignores SIGABRT
    machine.run("mkdir", "-p", folder)
    machine.run("bash", "-c", f"printf '{lines}' > {folder}/test.conf")
    try:
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "filesfs")
        before = machine.main_pid("filesfs")
        machine.run("sleep", "8")
        assert machine.main_pid("filesfs") == before
        machine.run("kill", "-STOP", before)
        machine.wait_active("filesfs", not_pid=before)
        machine.run("mkdir", "/mnt/files/watched")
    finally:
        machine.run("rm", "-r", folder)
        machine.run("systemctl", "daemon-reload")


def test_a_stop_in_the_middle_of_a_copy_loses_nothing_acknowledged(machine: Machine) -> None:
    """A file counts as acknowledged once its copy has ended well: then its name is noted."""
    machine.run("mkdir", "/mnt/files/stopped")
    script = (
        "head -c 8M /dev/urandom > /tmp/big;"
        "for n in $(seq 1000); do cp /tmp/big /mnt/files/stopped/$n || exit; echo $n >> /tmp/done;"
        " done"
    )
    copying = machine.start("bash", "-c", script)
    try:
        wait_for(
            lambda: len(machine.run("cat", "/tmp/done", check=False).split()) >= 3, 60, "copies"
        )
        machine.run("systemctl", "stop", "filesfs")
    finally:
        copying.kill()
        copying.wait(30)
    assert machine.run("ls", "/mnt/files") == ""
    machine.run("systemctl", "start", "filesfs")
    for name in machine.run("cat", "/tmp/done").split():
        machine.run("cmp", "/tmp/big", f"/mnt/files/stopped/{name}")


def test_the_nightly_check_runs_beside_the_server(machine: Machine) -> None:
    machine.run("systemctl", "start", "filesfs-fsck")  # waits for its end, and fails with it
    assert machine.run("ls", "/var/lib/filesfs") == "data"


def test_mount_and_fstab_know_the_type(machine: Machine) -> None:
    source = "unix:/run/filesfs-server/server.sock:/started"
    machine.run("mkdir", "-p", "/mnt/by-type", "/mnt/by-fstab")
    machine.run("mount", "-t", "filesfs", source, "/mnt/by-type", "-o", "ro,nodev")
    assert "email" in machine.run("ls", "/mnt/by-type")
    assert "Read-only" in machine.run("touch", "/mnt/by-type/x", check=False)
    machine.run("umount", "/mnt/by-type")
    line = f"{source} /mnt/by-fstab filesfs ro,noauto,_netdev,x-systemd.automount 0 0"
    machine.run("bash", "-c", f"echo '{line}' > /tmp/fstab && mount -T /tmp/fstab /mnt/by-fstab")
    assert "email" in machine.run("ls", "/mnt/by-fstab")
    machine.run("/srv/filesfs/bin/filesfs", "umount", "/mnt/by-fstab")


def test_an_ordinary_user_has_server_and_mount_in_one_command(machine: Machine) -> None:
    as_user = ("runuser", "-u", "nobody", "--", "env", "HOME=/tmp/home")
    filesfs = "/srv/filesfs/bin/filesfs"
    machine.run("install", "-d", "-o", "nobody", "-m", "700", "/tmp/home")
    running = machine.start(*as_user, filesfs, "up")
    try:
        wait_for(
            lambda: "/tmp/home/files" in machine.run(*as_user, filesfs, "status", check=False),
            60,
            "the user's mount",
        )
        machine.run(*as_user, "mkdir", "/tmp/home/files/mine")
        machine.run(*as_user, "cp", "-r", SOURCE, "/tmp/home/files/mine/")
        machine.run(*as_user, "diff", "-r", SOURCE, "/tmp/home/files/mine/email")
        machine.run(*as_user, filesfs, "umount", "/tmp/home/files")
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait(30)
