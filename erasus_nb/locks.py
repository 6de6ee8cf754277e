"""Locks between processes, on whatever the file system can do; and work shared out with them.

Some file systems refuse the usual lock (NFS without its lock daemon, some FUSE and SMB
mounts). There, a file that exists is the lock; where not even that can be had, the run goes on
without one, and says so once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

_warned: set[str] = set()


class Lock:
    """A lock that processes share by a path: a context manager, or `acquire` and `release`."""

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._held: BaseFileLock | None = None

    def acquire(self, blocking: bool = True) -> None:
        """Take the lock.

        Raises:
            Timeout: another process holds it, and `blocking` is False.
        """
        # The fallback is here alone: filelock's own is for one refusal, and warns at each lock.
        usual = partial(FileLock, fallback_to_soft=False)
        for kind, path in ((usual, self._path), (SoftFileLock, f"{self._path}.soft")):
            lock = kind(path)
            try:
                lock.acquire(blocking=blocking)
            except Timeout:
                raise
            except OSError as error:
                if kind is SoftFileLock:
                    self._say(error)
                continue
            self._held = lock
            return

    def _say(self, error: OSError) -> None:
        folder = str(self._path.parent)
        if folder not in _warned:
            _warned.add(folder)
            warnings.warn(
                f"nothing can be locked in {folder} ({error.strerror}); run one process at a "
                "time there",
                stacklevel=4,
            )

    def release(self) -> None:
        """Give the lock back; does nothing where none was to be had."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def shared(items: Iterable[Any], lock: Callable[[Any], Lock]) -> Iterator[Any]:
    """Every item, each while its lock is held; those that another process holds come last.

    So that processes that want the same things done share them out. An item may have been
    done by another process by the time it comes: the caller looks.
    """
    taken = []
    for item in items:
        held = lock(item)
        try:
            held.acquire(blocking=False)
        except Timeout:
            taken.append(item)
            continue
        try:
            yield item
        finally:
            held.release()
    for item in taken:
        with lock(item):
            yield item
