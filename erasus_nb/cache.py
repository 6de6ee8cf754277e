"""Costly tensors by key, kept in memory and on disk; a disk only ever costs or saves time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import ROOT
from .keys import digest
from .locks import Lock, shared


class Cache:
    """Tensors by key: in memory, and as safetensors files where the folder can be written.

    The cache only saves time. A file that cannot be read, or that holds another key, is
    named in a warning and made anew; a folder that cannot be written is named once and the
    run goes on without it. Processes wait for each other instead of doing work twice.
    """

    def __init__(self, folder: Path | None):
        self.folder, self._memory, self._full = folder, {}, False
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (probe := folder / f".probe-{os.getpid()}").touch()
                probe.unlink()
            except OSError as error:
                warnings.warn(
                    f"cache {folder} cannot be written ({error.strerror}); "
                    "everything is computed in this run",
                    stacklevel=2,
                )
                self.folder = None

    def one(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of one key, made if they are not there."""
        return self.many([key], lambda missing: [make()])[0]

    def each(
        self, keys: Sequence[str], make: Callable[[int], dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """The tensors of several keys, made one by one and shared out between processes.

        Args:
            make: Position of a missing key -> its tensors.
        """
        places = range(len(keys))
        if self.folder is not None:
            places = shared(places, lambda place: self._lock([keys[place]]))
        for place in places:
            self._fetch([keys[place]], lambda _, place=place: [make(place)])
        return [self._memory[key] for key in keys]

    def many(
        self, keys: Sequence[str], make: Callable[[list[int]], list[dict[str, Tensor]]]
    ) -> list[dict[str, Tensor]]:
        """The tensors of several keys; `make` gets the positions of the missing ones."""
        if any(key not in self._memory for key in keys):
            with nullcontext() if self.folder is None else self._lock(keys):
                self._fetch(keys, make)
        return [self._memory[key] for key in keys]

    def _lock(self, keys: Sequence[str]) -> Lock:
        return Lock(self.folder / f"{digest(list(keys))}.lock")

    def _fetch(self, keys, make) -> None:
        """Read what is on disk, make and write the rest; whoever calls holds the lock."""
        for key in keys:
            if self.folder is not None and key not in self._memory:
                if (found := self._read(key)) is not None:
                    self._memory[key] = found
        missing = [i for i, key in enumerate(keys) if key not in self._memory]
        if missing:
            for i, made in zip(missing, make(missing), strict=True):
                self._memory[keys[i]] = made
                if self.folder is not None and not self._full:
                    self._write(keys[i], made)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("key") != key:
                    raise ValueError("it holds another key")
                return {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            warnings.warn(
                f"cache file {path} is not usable ({error}); making it anew", stacklevel=2
            )
            return None

    def _write(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep what was made; a disk that is full costs time later and stops nothing."""
        part = self._path(key).with_suffix(f".{os.getpid()}.part")
        whole = {name: value.contiguous().cpu() for name, value in tensors.items()}
        try:
            save_file(whole, part, {"key": key})
            os.replace(part, self._path(key))
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                part.unlink()
            warnings.warn(
                f"cache {self.folder} takes no more ({error}); what is made from now on is kept "
                "in memory alone",
                stacklevel=2,
            )
            self._full = True


def default_cache() -> Path:
    """Where originals and retrained models are kept: $ERASUS_CACHE or `_runs/cache`."""
    return Path(os.environ.get("ERASUS_CACHE") or ROOT / "_runs" / "cache")
