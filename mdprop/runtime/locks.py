"""Locks of processes, which go when their process ends."""

from __future__ import annotations

import os
from pathlib import Path


def locked(path: Path, shared: bool = False) -> int | None:
    """A file descriptor that holds the lock; None where another process has it, or removed the file.

    Where the system has no such locks (Windows), everybody gets one.
    """
    try:
        import fcntl
    except ImportError:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(number, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(number), path.stat()):
            return number
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(number)
        raise
    os.close(number)
    return None
