"""One result document on disk, which several processes may write at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from . import records
from .locks import Lock


class Writer:
    """One document on disk: rows are added one by one, and each is safe once added.

    Two processes may write the same document: each addition reads what the other wrote.
    """

    def __init__(self, path: Path | None, empty: records.Document, resume: bool = True):
        self.path, self.document, self._resume = path, empty, resume
        #: The file as this process last read or wrote it. Times of files are not asked: some
        #: file systems have whole seconds.
        self._text: str | None = None
        self._trust: set[tuple[str, int]] = set()
        self._own: set[tuple[str, int]] = set()
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise records.RecordError(
                    f"{path}: cannot be written ({error.strerror})"
                ) from error
            with self._locked():
                self._merge()
                self._save()
            if resume:
                self._trust = {(r.strategy, r.seed) for r in self.document.rows}

    def _locked(self) -> Lock:
        return Lock(self.path.with_name(f".{self.path.name}.lock"))

    def turn(self, rows: tuple[str, Sequence[int]]) -> Lock:
        """Held while a process measures rows (a name, its seeds) that others want too."""
        name, seeds = rows
        which = f"{name}-{seeds[0]}-{seeds[-1]}"
        return Lock(self.path.with_name(f".{self.path.name}.{which}.lock"))

    def look(self) -> None:
        """Take in, and trust, what another process finished while this one waited."""
        if self.path is not None and self._resume:
            with self._locked():
                self._merge()
            self._trust = {(r.strategy, r.seed) for r in self.document.rows}

    def _merge(self) -> None:
        if not self.path.is_file() or records.text_of(self.path) == self._text:
            return
        found = records.read(self.path)
        # Only what this process measured is newer than the file.
        mine = [r for r in self.document.rows if (r.strategy, r.seed) in self._own]
        kept = [r for r in found.rows if (r.strategy, r.seed) not in self._own]
        self.document.rows = kept + mine
        self.document.gates = self.document.gates or found.gates

    def _save(self) -> None:
        self._text = records.dumps(self.document)
        records.write_text(self.path, self._text)

    def row(self, strategy: str, seed: int) -> records.Row:
        return next(r for r in self.document.rows if (r.strategy, r.seed) == (strategy, seed))

    def has(self, strategy: str, seed: int, key: str, seeds: Iterable[int]) -> bool:
        """Whether a finished row with this key is there, compared with all these retrained."""
        if (strategy, seed) not in self._trust:
            return False
        row = self.row(strategy, seed)
        compared = (
            row.status != "ok" or {str(s) for s in seeds} <= row.divergence_to_retrained.keys()
        )
        return row.key == key and compared and row.status != "error"

    def add(self, row: records.Row) -> None:
        row = records.Row.model_validate(row.model_dump())
        if self.path is None:
            self._put(row)
            return
        with self._locked():
            self._merge()
            self._put(row)
            self._save()

    def _put(self, row: records.Row) -> None:
        others = [r for r in self.document.rows if (r.strategy, r.seed) != (row.strategy, row.seed)]
        self.document.rows = [*others, row]
        self._trust.add((row.strategy, row.seed))
        self._own.add((row.strategy, row.seed))

    def flush(self) -> None:
        """Write the document again, for what is not a row."""
        if self.path is not None:
            with self._locked():
                self._merge()
                self._save()
