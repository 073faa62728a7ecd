"""The guard around every FUSE operation, and the only table from errors to errno.

pyfuse3 ends the mount on any exception but FUSEError, so nothing else may leave here. Deadlines are
the backend's: each request has one, so each operation ends.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from filesfs import errors
from filesfs.fuse.turns import turn

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_CONFLICTS = {
    "exists": errno.EEXIST,
    "not-empty": errno.ENOTEMPTY,
    "is-directory": errno.EISDIR,
    "not-directory": errno.ENOTDIR,
    "alias": errno.EEXIST,
    "busy": errno.EBUSY,
}

# The first class that fits counts, so subclasses stand before their bases.
_ERRNO: tuple[tuple[type[Exception], int, int], ...] = (
    (errors.InvalidRequest, errno.EINVAL, logging.INFO),
    (errors.AccessDenied, errno.EACCES, logging.INFO),
    (errors.NotFound, errno.ENOENT, logging.DEBUG),
    (errors.Gone, errno.ESTALE, logging.INFO),
    (errors.PreconditionFailed, errno.ESTALE, logging.INFO),
    (errors.TooLarge, errno.EFBIG, logging.INFO),
    (errors.RangeNotSatisfiable, errno.EIO, logging.WARNING),
    (errors.Unsupported, errno.ENOTSUP, logging.INFO),
    (errors.NoSpace, errno.ENOSPC, logging.WARNING),
    (errors.Stale, errno.ESTALE, logging.INFO),
    (errors.Corrupted, errno.EIO, logging.ERROR),
    (errors.Unavailable, errno.EIO, logging.WARNING),
)


def errno_of(error: Exception) -> tuple[int, int]:
    """(errno, log level) of an error; without a row it is a bug: EIO and a traceback in the log."""
    if isinstance(error, errors.FileSystemError):
        return error.code, logging.DEBUG
    if isinstance(error, errors.Conflict):
        return _CONFLICTS.get(error.reason, errno.EIO), logging.INFO
    if isinstance(error, OSError) and error.errno:  # the spool's disk: ENOSPC, EDQUOT, EIO, EFBIG
        return error.errno, logging.WARNING
    for kind, code, level in _ERRNO:
        if isinstance(error, kind):
            return code, level
    return errno.EIO, logging.CRITICAL


def _reduced(group: BaseExceptionGroup[BaseException]) -> Exception:
    """The first real error of a group that a nursery made."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, Exception) else RuntimeError(repr(first))


def translate(operation: str, error: Exception) -> pyfuse3.FUSEError:
    code, level = errno_of(error)
    if level == logging.CRITICAL:
        log.error("%s: unexpected %r", operation, error, exc_info=error)
    elif log.isEnabledFor(level):
        name = errno.errorcode.get(code, str(code))
        log.log(level, "%s: %s: %s", operation, name, error or type(error).__name__)
    return pyfuse3.FUSEError(code)


def guarded(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """An operation from which only FUSEError comes."""

    @functools.wraps(method)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await turn.run(method(*args, **kwargs))
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            if isinstance(error, BaseExceptionGroup):
                error = _reduced(error)
            raise translate(method.__name__, error) from error

    return wrapper


def guard_all(cls: type[Any]) -> type[Any]:
    """Class decorator: every public coroutine method is guarded."""
    for name, value in list(vars(cls).items()):
        if not name.startswith("_") and callable(value):
            setattr(cls, name, guarded(value))
    return cls
