"""The one error the local stack raises."""

import errno
from pathlib import Path


class StackError(Exception):
    """The local stack cannot do what was asked. The text is one line for a person, with what to do about it."""

    def __init__(self, message: str, *, log: Path | None = None, log_tail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.log = log
        self.log_tail = log_tail
        if log_tail:
            # For tracebacks: of a failed test, say, whose directory is gone.
            self.add_note(log_tail)


def disk_full(path: Path) -> StackError:
    """What a person is told when a write found no room."""
    return StackError(f"the disk that holds {path} is full: free some space there, or choose another data directory")


def describe_os_error(error: OSError, path: Path) -> StackError:
    """One line for a file system error under a path."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return disk_full(path)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        where = error.filename or path
        return StackError(f"cannot write {where}: {error.strerror}; choose another data directory")
    return StackError(f"cannot use {path}: {error}")
