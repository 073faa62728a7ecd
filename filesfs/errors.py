"""The exception tree of the mount. A leaf: imports nothing of filesfs.

FilesfsError
├── UsageError               a user's mistake: one line and an exit code, never a traceback
├── RequestError             the server answered, and the answer is an error
│   ├── InvalidRequest       400
│   ├── AccessDenied         401, 403
│   ├── NotFound             404 with the error object: it does not exist
│   ├── Conflict             409; `reason` is the Files-Error
│   ├── Gone                 410: the session, version or cursor is no more
│   ├── PreconditionFailed   412
│   ├── TooLarge             413
│   ├── RangeNotSatisfiable  416
│   ├── Unsupported          405, 501
│   └── NoSpace              507
├── Unavailable              429, 5xx, connection trouble: worth another try
│   └── DeadlineExceeded     tried until the deadline
├── Corrupted                bytes do not match their checksum, again and again
│   └── Damaged              they are so where they are stored: asking again changes nothing
├── Stale                    the version or resource that was asked for is no more
└── FileSystemError          semantics: carries an errno by name (filesystem layer)

`fuse/guard.py` holds the one table from these to errno.
"""

from __future__ import annotations


class FilesfsError(Exception):
    """Anything that filesfs raises on purpose."""


class UsageError(FilesfsError):
    """A mistake of the person at the keyboard; `exit_code` is the process's."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RequestError(FilesfsError):
    """The server refused. `detail` is its own sentence, `status` the HTTP status."""

    status = 0

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        if status is not None:
            self.status = status


class InvalidRequest(RequestError):
    status = 400


class AccessDenied(RequestError):
    status = 403


class NotFound(RequestError):
    status = 404


class Conflict(RequestError):
    """409. `reason` is the Files-Error: busy, offset, complete, exists, not-empty, alias, ..."""

    status = 409

    def __init__(self, detail: str, reason: str = "", offset: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.offset = offset  # bytes the session holds, when reason is "offset"


class Gone(RequestError):
    status = 410


class PreconditionFailed(RequestError):
    status = 412


class TooLarge(RequestError):
    status = 413


class RangeNotSatisfiable(RequestError):
    status = 416


class Unsupported(RequestError):
    status = 501


class NoSpace(RequestError):
    status = 507


class Unavailable(FilesfsError):
    """The server cannot be reached or is overloaded. `retry_after` in seconds, when it said so."""

    def __init__(self, detail: str, retry_after: float | None = None, sent: bool = True) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.sent = sent  # False: the request never left, so repeating it is always safe


class DeadlineExceeded(Unavailable):
    """Tried again and again until the deadline; the last cause is `__cause__`."""


class Corrupted(FilesfsError):
    """What arrived does not match its checksum."""


class Damaged(Corrupted):
    """The server has found its stored bytes damaged, and says so."""


class Stale(FilesfsError):
    """The version that this handle was opened on is no more."""


class FileSystemError(FilesfsError):
    """A rule of the file system itself says no. `code` is an errno value (errno.ENOTEMPTY, ...)."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code
