"""Notebooks run in processes of their own, a few at a time, with one display of how far they are."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import ROOT, cells, progress, records


@dataclass
class Job:
    """One notebook to run, and how far it is."""

    name: str
    values: dict[str, Any]
    stamp: str
    steps: int
    step: int = 0
    seconds: float = 0.0
    ok: bool = False
    said: str = ""
    tail: deque = field(default_factory=lambda: deque(maxlen=400))

    @property
    def source(self) -> Path:
        return ROOT / "notebooks" / f"{self.name}.ipynb"

    @property
    def output(self) -> Path:
        return ROOT / "_runs" / f"{self.name}.ipynb"

    @property
    def part(self) -> Path:
        # papermill warns about any other ending; the last good run stays until this one is.
        return ROOT / "_runs" / f".{self.name}.part.ipynb"


#: Seconds after which the display is drawn again, whatever happened.
_DRAWN = 10.0
#: How papermill's bar begins in a child process, so that no other bar is taken for it.
BAR = "erasus-cells"
_STEP = re.compile(re.escape(BAR) + r".*?(\d+)/(\d+) \[")

#: glibc gives freed memory back to the system at once and asks for it again at the next step.
#: Kept, a page on the language model takes about 3 % less time.
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(10**9), "MALLOC_MMAP_THRESHOLD_": str(2**25)}


class Runner:
    """Runs jobs in processes of their own, a few at a time, and shows how far they are."""

    def __init__(self, jobs: list[Job], at_once: int):
        self.jobs, self.at_once = jobs, at_once
        self.running: dict[str, subprocess.Popen] = {}
        self.lock, self.stopping = threading.Lock(), False
        self.live = sys.stderr.isatty()
        self.bar = tqdm(
            total=sum(job.steps for job in jobs),
            unit="cell",
            dynamic_ncols=True,
            mininterval=0.5 if self.live else 15,
            maxinterval=1 if self.live else 60,
            bar_format="{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} cells, {elapsed}  {desc}",
        )

    def all(self) -> None:
        """Run every job; a failed one does not stop the others."""
        try:
            with _stopped_by_signals(), ThreadPoolExecutor(self.at_once) as pool:
                try:
                    left = {pool.submit(self._one, job) for job in self.jobs}
                    while left:
                        done, left = wait(left, timeout=_DRAWN)
                        for future in done:
                            future.result()
                        self._describe(refresh=True)
                except BaseException:
                    self._stop()
                    raise
        finally:
            self.bar.close()

    def _stop(self) -> None:
        """End the processes started here; each ends its kernel."""
        with self.lock:
            self.stopping = True
            for process in self.running.values():
                if process.poll() is None:
                    process.terminate()

    def _one(self, job: Job) -> None:
        start = time.monotonic()
        command = [sys.executable, "-m", "erasus_nb.execute", str(job.source), str(job.part)]
        command += ["--cwd", str(ROOT)]
        environment = {**_ALLOCATOR, **os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        # The package need not be installed to be found.
        package = str(Path(__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [package, os.environ.get("PYTHONPATH")])
        )
        with self.lock:
            if self.stopping:
                return
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=environment,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C comes to this process alone
            )
            self.running[job.name] = process
        self._describe()
        with suppress(BrokenPipeError), process.stdin:  # it ended: its exit code tells
            process.stdin.write(json.dumps(job.values))
        # Universal newlines turn the carriage returns of papermill's own bar into lines.
        for line in process.stderr:
            self._listen(job, line.rstrip())
        code = process.wait()
        job.seconds = time.monotonic() - start
        if code == 0:
            try:
                self._keep(job)
                job.ok = True
            except (OSError, ValueError, records.RecordError) as error:
                job.tail.append(f"the executed notebook could not be kept: {error}")
        with self.lock:
            del self.running[job.name]
            self.bar.update(job.steps - job.step)
        self._describe()
        said = "done" if job.ok else f"FAILED (exit code {code})"
        tqdm.write(f"{job.name:<12} {said} after {clock(job.seconds)}", file=sys.stderr)

    def _listen(self, job: Job, line: str) -> None:
        if at := _STEP.search(line):
            step = min(int(at[1]), job.steps)
            with self.lock:
                self.bar.update(max(0, step - job.step))
                if step > job.step:
                    job.step, job.said = step, ""
        elif said := progress.latest(line):
            job.said = said
            self._describe()
        elif line.strip():
            job.tail.append(re.sub(r"\x1b\[[0-9;]*m", "", line))

    def _describe(self, refresh: bool = False) -> None:
        """Say what runs; into a log file only what time or a finished notebook calls for."""
        with self.lock:
            running = [job for job in self.jobs if job.name in self.running]
            texts = [f"{job.name} ({job.said})" if job.said else job.name for job in running]
            text = ", ".join(texts) or "finished"
            self.bar.set_description_str(text, refresh=self.live or refresh)

    def _keep(self, job: Job) -> None:
        """Note what was run in the executed notebook, then put it in its place in one step."""
        run = json.loads(job.part.read_text("utf-8"))
        run["metadata"]["erasus"] = {"stamp": job.stamp}
        for _, cell in cells.code_cells(run):
            cell["outputs"] = progress.without(cell["outputs"])
        records.write_text(job.output, json.dumps(run, indent=1))
        job.part.unlink()


def kernel_environment(folder: Path) -> dict[str, str]:
    """The environment of a kernel that a user's start-up files and settings do not reach.

    Args:
        folder: An empty folder for the time that the kernel lives.
    """
    (folder / "ipython").mkdir()
    (folder / "matplotlibrc").touch()
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONSTARTUP"}
    return kept | {
        "IPYTHONDIR": str(folder / "ipython"),
        # Not MPLCONFIGDIR: the list of fonts is kept there, which takes seconds to make.
        "MATPLOTLIBRC": str(folder / "matplotlibrc"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        progress.BATCH: "1",
    }


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """A signal that ends this process ends what was started first."""

    def leave(number, frame):
        sys.exit(128 + number)

    names = ("SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # An ignored one stays so: `nohup` asks for that. Only the main thread may set any.
    ours = [n for n in numbers if signal.getsignal(n) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def clock(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_writable(folder: Path) -> None:
    """Make a folder and see that files can be put there.

    Raises:
        RecordError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise records.RecordError(f"{folder}: cannot be written ({error.strerror})") from error
