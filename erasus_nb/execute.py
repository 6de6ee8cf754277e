"""One notebook run by papermill in a process of its own: `python -m erasus_nb.execute`.

The same run for everybody: the kernel is this Python whatever kernels are installed, and
the user's start-up files and settings do not reach it. It is spoken to through a socket of
its own instead of TCP ports, for which kernels that start at once race.

Parameters come as JSON on stdin. On stderr: papermill's bar, which begins with BAR, what the
notebook writes to its stderr, and the error if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

from .runner import BAR, kernel_environment

#: Seconds that a kernel may take to start: many at once on few cores take their time.
START = 300

#: Bytes of a Unix socket's path: 104 on macOS, 108 on Linux, its end included.
_LONGEST_PATH = 100


class Kernel(AsyncKernelManager):
    """This Python's kernel, on sockets in a folder of its own."""

    #: The folder, and the kernels that were started from this process.
    folder: Path
    started: list[Kernel] = []

    def __init__(self, **given):
        super().__init__(connection_file=str(self.folder / "k.json"), **given)
        # Windows has no such sockets in Python; a path may be too long for one.
        longest = f"{self.folder}/k-ipc-99"
        if hasattr(socket, "AF_UNIX") and len(os.fsencode(longest)) <= _LONGEST_PATH:
            self.transport = "ipc"
        self.started.append(self)

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")

    def kill(self) -> None:
        """End the kernel and what it started, at once."""
        process = getattr(self.provisioner, "process", None)
        if process is not None and process.poll() is None:
            with contextlib.suppress(OSError):  # it ended meanwhile
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)  # a kernel leads a group of its own
                else:
                    process.kill()


class _Lines:
    """Where papermill writes the notebook's stderr: whole lines, so that bars stay apart."""

    def write(self, text: str) -> None:
        for line in re.split(r"[\r\n]+", text):
            if line.strip():
                sys.stderr.write(f"\n{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def main(argv: list[str] | None = None) -> int:
    """Run one notebook; the exit code is 1 where a cell failed."""
    parser = argparse.ArgumentParser(prog="python -m erasus_nb.execute")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--cwd")
    args = parser.parse_args(argv)
    values = json.load(sys.stdin)
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")  # as `run` reads it
    folder = Path(tempfile.mkdtemp(prefix="erasus-"))

    def stop(number, frame):
        # Killed like this, papermill would leave its kernel to notice by itself.
        for kernel in Kernel.started:
            kernel.kill()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        os.environ.update(kernel_environment(folder))
        os.environ.pop("PYTHONSTARTUP", None)
        Kernel.folder = folder
        papermill.execute_notebook(
            args.source,
            args.target,
            values,
            cwd=args.cwd,
            progress_bar={"desc": BAR},
            stderr_file=_Lines(),
            start_timeout=START,
            kernel_manager_class=Kernel,
        )
    except papermill.PapermillExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
