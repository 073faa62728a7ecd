"""A disk whose quota is used up, without one: a library before libc's answers EDQUOT to writes.

Only below one folder, and only while a file of another name exists. No file system of every kernel
has quotas, and none has them for root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int used_up(int fd)
{
    const char *flag = getenv("TEST_QUOTA_FLAG"), *folder = getenv("TEST_QUOTA_FOLDER");
    char link[64], path[PATH_MAX];
    ssize_t length;

    if (!flag || !folder || access(flag, F_OK))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return !strncmp(path, folder, strlen(folder));
}

#define REFUSING(type, name, failure, parameters, arguments) \
    type name parameters                                     \
    {                                                        \
        type (*next) parameters = dlsym(RTLD_NEXT, #name);   \
        if (!used_up(fd))                                    \
            return next arguments;                           \
        errno = EDQUOT;                                      \
        return failure;                                      \
    }

typedef const struct iovec *pieces;
REFUSING(ssize_t, write, -1, (int fd, const void *data, size_t size), (fd, data, size))
REFUSING(ssize_t, pwrite, -1, (int fd, const void *data, size_t size, off_t at),
         (fd, data, size, at))
REFUSING(ssize_t, pwrite64, -1, (int fd, const void *data, size_t size, off64_t at),
         (fd, data, size, at))
REFUSING(ssize_t, writev, -1, (int fd, pieces data, int count), (fd, data, count))
REFUSING(ssize_t, pwritev, -1, (int fd, pieces data, int count, off_t at), (fd, data, count, at))
REFUSING(int, posix_fallocate, EDQUOT, (int fd, off_t at, off_t size), (fd, at, size))
REFUSING(int, posix_fallocate64, EDQUOT, (int fd, off64_t at, off64_t size), (fd, at, size))
"""


class Quota:
    """What is started inside `obeyed` gets EDQUOT for writes below `folder` while it is used up."""

    def __init__(self, library: Path, folder: Path, flag: Path) -> None:
        self._environment = {
            "LD_PRELOAD": str(library),
            "TEST_QUOTA_FLAG": str(flag),
            "TEST_QUOTA_FOLDER": f"{folder}/",
        }
        self._flag = flag

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        os.environ.update(self._environment)
        try:
            yield
        finally:
            for name in self._environment:
                del os.environ[name]

    @contextmanager
    def used_up(self) -> Iterator[None]:
        self._flag.touch()
        try:
            yield
        finally:
            self._flag.unlink()


def quota_of(folder: Path, scratch: Path) -> Quota:
    """Skips where there is no compiler."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing")
    source, library = scratch / "quota.c", scratch / "quota.so"
    source.write_text(_SOURCE)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return Quota(library, folder, scratch / "used-up")
