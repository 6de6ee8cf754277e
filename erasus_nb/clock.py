"""What a run costs and where it was made: time, peak memory, environment."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from . import ROOT, records

#: For so many seconds the state of the work tree is not asked for again.
_FRESH = 5


def now(device: str) -> float:
    """Seconds on the clock that costs are read from.

    On a CPU, where one thread does all the work, processor time: a neighbour that takes the
    core for a while does not make a strategy slower. On an accelerator, wall time.
    """
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class PeakMemory:
    """How far peak memory rises: of the accelerator, or of this process where Linux tells."""

    def __init__(self, device: str):
        self.cuda = device.startswith("cuda")
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 2**20
            return
        try:
            # What is free already, and only kept by the allocator, would hide a rise.
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
                trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            self.start = self._status("VmRSS")
        except (OSError, TypeError):  # not Linux
            self.start = None

    @staticmethod
    def _status(name: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise OSError(f"no {name}")

    def rise_mb(self) -> float | None:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**20 - self.start
        if self.start is None:
            return None
        try:
            return max(0.0, self._status("VmHWM") - self.start)
        except OSError:
            return None


def commit() -> tuple[str, bool]:
    """The commit of the project, and whether code differs from it (results do not count)."""
    return _commit_at(int(time.monotonic() / _FRESH))


@cache
def _commit_at(moment: int) -> tuple[str, bool]:
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        code = ["erasus_nb", "notebooks", "requirements.txt"]
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", *code], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
    return commit.stdout.strip(), bool(changed.stdout.strip())


def environment(device: str) -> records.Environment:
    """Where, when and with which commit something is made."""
    made_from, dirty = commit()
    return records.Environment(
        commit=made_from,
        dirty=dirty,
        python=platform.python_version(),
        torch=torch.__version__,
        device=device,
        threads=torch.get_num_threads(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
