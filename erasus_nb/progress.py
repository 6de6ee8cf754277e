"""What is running and how far it is, in a terminal, in JupyterLab and in papermill's log.

    with progress.working("scrub on digits", total=8, unit="seed") as step:
        for seed in seeds:
            step(f"seed {seed}")  # this piece begins; the one before it is done
            ...

Work of less than NOTICEABLE seconds writes nothing. After that a thread says what is running,
and again at least every EVERY seconds, one long call included: such a line ends in a carriage
return, and the next line takes its place. A piece that took noticeable time leaves one
line. Inside another `working`, the inner one is shown until it ends; then the outer again.

Lines go to stderr; in a notebook that is not run by `run` to stdout, because JupyterLab shows
stderr in a red box, as if something had gone wrong.

Every line begins with MARK. By it `run` finds the lines, and `without` takes them out of
an executed notebook: where a page was is of no interest once it is done.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tqdm import tqdm

#: How every line begins.
MARK = "[erasus] "
#: Set in the environment of a run of the whole book, which reads these lines from stderr.
BATCH = "ERASUS_BATCH"
#: Seconds of work before anything is said.
NOTICEABLE = 1.0
#: Seconds between two lines about the same piece.
EVERY = 8.0

_LONGEST = 80  # characters of what is said to run; longer lines break in most terminals
_LINE = re.compile(re.escape(MARK) + r"[^\r\n]*[\r\n]?")


@dataclass(eq=False)
class _Work:
    """One `working` that has not ended: its pieces, and since when the present one runs."""

    what: str
    total: int | None
    unit: str
    since: float
    began: int = 0
    piece: str = ""

    def line(self, seconds: float) -> str:
        place = f"{self.unit} {self.began} of {self.total}" if self.began and self.total else ""
        if place and self.piece.split(" ")[0] == self.unit and len(self.piece.split(" ")) == 2:
            return f"{self.what[:_LONGEST]}: {place}, {tqdm.format_interval(seconds)}"
        said = f"{self.what}: {self.piece}" if self.piece else self.what
        place = f" ({place})" if place else ""
        return f"{said[:_LONGEST]}{place}, {tqdm.format_interval(seconds)}"


def _stream():
    """Where lines go: see the top of this module."""
    out = getattr(sys, "stdout", None)
    in_kernel = type(out).__module__.partition(".")[0] == "ipykernel"
    return out if in_kernel and not os.environ.get(BATCH) else sys.stderr


class _Lines:
    """All work that has not ended, the innermost last, and the thread that tells of it."""

    def __init__(self):
        self.works: list[_Work] = []
        self.lock = threading.Lock()
        self.ended: threading.Event | None = None
        self.quiet_since = 0.0  # when the last line was written, or work began
        self.shown = 0  # its length, if the next line must cover it

    def begin(self, work: _Work) -> None:
        with self.lock:
            self.works.append(work)
            if self.ended is None:
                self.ended, self.quiet_since = threading.Event(), work.since
                # Of this cell: Jupyter shows what a thread writes where the thread was started.
                threading.Thread(target=self._tell, args=(self.ended,), daemon=True).start()

    def step(self, work: _Work, piece: object) -> None:
        with self.lock:
            self._leave(work)
            work.piece = " ".join(str(piece).split())
            work.began += 1
            work.since = time.monotonic()

    def end(self, work: _Work, done: bool) -> None:
        with self.lock:
            if done:
                self._leave(work)
            elif self.shown:  # what is said of the failure begins on a line of its own
                self._write(f"{work.what}: stopped", "\n")
            self.works.remove(work)
            if not self.works:
                if self.shown:  # of a last piece that was over soon after
                    self._write(f"{work.what}: done", "\n")
                self.ended.set()
                self.ended = None

    def _leave(self, work: _Work) -> None:
        """One lasting line about a piece that is done, if it took noticeable time."""
        seconds = time.monotonic() - work.since
        if seconds >= NOTICEABLE:
            self._write(work.line(seconds), "\n")

    def _tell(self, ended: threading.Event) -> None:
        while not ended.wait(NOTICEABLE / 4):
            with self.lock:
                if ended.is_set() or not self.works:
                    continue
                now, work = time.monotonic(), self.works[-1]
                new = work.since >= self.quiet_since and now - work.since >= NOTICEABLE
                if new or now - self.quiet_since >= EVERY:
                    self._write(work.line(now - work.since), "\r")

    def _write(self, text: str, end: str) -> None:
        stream = _stream()
        if stream is None:  # a program without a console
            return
        line = MARK + text
        encoding = getattr(stream, "encoding", None) or "utf-8"
        line = line.encode(encoding, "replace").decode(encoding)
        self.quiet_since = time.monotonic()
        # In one write: an output of a notebook never holds part of a line.
        covered, self.shown = line.ljust(self.shown) + end, len(line) if end == "\r" else 0
        # A closed stream: the work goes on, whether or not somebody can be told.
        with contextlib.suppress(OSError, ValueError):
            stream.write(covered)
            stream.flush()


_lines = _Lines()


@contextlib.contextmanager
def working(
    what: str, total: int | None = None, unit: str = "step"
) -> Iterator[Callable[[object], None]]:
    """Say what is running for as long as the block runs.

    Blocks may be nested and may run in several threads; the one begun last is shown.

    Args:
        what: What is being done, e.g. "scrub on digits".
        total: How many pieces there will be; None where nobody knows.
        unit: What a piece is called.

    Yields:
        A function to be called with the name of each piece when it begins. A block
        without pieces need not call it.
    """
    work = _Work(" ".join(what.split()), total, unit, time.monotonic())
    _lines.begin(work)
    done = False
    try:
        yield lambda piece: _lines.step(work, piece)
        done = True
    finally:
        _lines.end(work, done)


def latest(text: str) -> str | None:
    """What the last progress line in a text says, or None where there is none."""
    found = _LINE.findall(text)
    return found[-1].removeprefix(MARK).strip() if found else None


def without(outputs: list[dict]) -> list[dict]:
    """A cell's outputs without progress lines; a stream of nothing else is dropped."""
    left = []
    for output in outputs:
        if output["output_type"] == "stream":
            text = "".join(output["text"])
            rest = _LINE.sub("", text)
            if rest != text:
                if not rest.strip():
                    continue
                output = {**output, "text": rest}
        left.append(output)
    return left
