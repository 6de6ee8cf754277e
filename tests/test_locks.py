"""Locks, the cache and documents on file systems that cannot do what they usually can."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import fabricate
import pytest
import torch
from filelock import Timeout

from erasus_nb import locks, records
from erasus_nb.cache import Cache
from erasus_nb.locks import Lock, shared
from erasus_nb.writer import Writer

#: What file systems answer to the usual lock: NFS without its daemon, FUSE, SMB, others.
REFUSALS = ("ENOLCK", "EOPNOTSUPP", "EIO", "ENOSYS")


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(locks, "_warned", set())


@pytest.fixture
def said():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def refusing(name: str):
    number = getattr(errno, name)

    def flock(descriptor, how):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.fixture(params=REFUSALS)
def refused(request, monkeypatch) -> str:
    """A file system that refuses the usual lock."""
    monkeypatch.setattr(fcntl, "flock", refusing(request.param))
    return request.param


@pytest.fixture
def unlockable(monkeypatch):
    """A file system on which nothing can be locked."""

    class Refusing:
        def __init__(self, path):
            pass

        def acquire(self, blocking=True):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(fcntl, "flock", refusing("ENOLCK"))
    monkeypatch.setattr(locks, "SoftFileLock", Refusing)


def document(folder: Path, **more) -> Writer:
    empty = fabricate.documents("synthetic", seeds=1)[0].model_copy(update={"rows": []}, deep=True)
    return Writer(folder / "synthetic" / "reference.json", empty, **more)


def row(name: str, seed: int, key: str = "k") -> records.Row:
    return records.Row(
        strategy=name,
        kind="strategy",
        category="x",
        seed=seed,
        status="not_applicable",
        reason="a test",
        key=key,
    )


# ------------------------------------------------------------------ locks


def test_a_lock_is_held_once_and_given_back(tmp_path):
    with Lock(tmp_path / "a.lock"), pytest.raises(Timeout):
        Lock(tmp_path / "a.lock").acquire(blocking=False)
    lock = Lock(tmp_path / "a.lock")
    lock.acquire(blocking=False)
    lock.release()
    lock.release()  # once more does nothing


def test_where_the_usual_lock_is_refused_a_file_is_the_lock(tmp_path, refused, said):
    with Lock(tmp_path / "a.lock"):
        with pytest.raises(Timeout):
            Lock(tmp_path / "a.lock").acquire(blocking=False)
        with Lock(tmp_path / "b.lock"):
            pass
    with Lock(tmp_path / "a.lock"):
        pass
    assert not said  # nothing is lost: nothing is to be said


def test_where_nothing_can_be_locked_the_run_goes_on_and_says_so_once_a_folder(
    tmp_path, unlockable, said
):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b", "a"):
            with Lock(tmp_path / folder / f"{name}.lock"):
                pass
    assert [str(warning.message) for warning in said] == [
        f"nothing can be locked in {tmp_path / folder} (Read-only file system); run one process "
        "at a time there"
        for folder in ("one", "other")
    ]
    assert said[0].filename == __file__  # where the run is, not the lock


def test_what_is_shared_out_is_done_by_one_each_with_any_lock(tmp_path, refused, said):
    lock = lambda name: Lock(tmp_path / f"{name}.lock")
    held, order = lock("b"), []
    held.acquire()
    for name in shared("abc", lock):
        order.append(name)
        with pytest.raises(Timeout):
            lock(name).acquire(blocking=False)
        if name == "c":
            held.release()
    assert order == ["a", "c", "b"] and not said


def test_what_is_shared_out_without_locks_is_done_once_in_its_order(tmp_path, unlockable, said):
    assert list(shared("abc", lambda name: Lock(tmp_path / f"{name}.lock"))) == list("abc")
    assert len(said) == 1


COUNTING = """
import errno, fcntl, os, sys, time, warnings
warnings.simplefilter("error")
from pathlib import Path
from erasus_nb.locks import Lock
refusal, folder = sys.argv[1], Path(sys.argv[2])
if refusal:
    def flock(*_, number=getattr(errno, refusal)):
        raise OSError(number, os.strerror(number))
    fcntl.flock = flock
print("ready", flush=True)
sys.stdin.readline()
for _ in range(15):
    with Lock(folder / "count.lock"):
        count = int((folder / "count").read_text())
        time.sleep(0.002)
        (folder / "count").write_text(str(count + 1))
"""


def side_by_side(code: str, *arguments: list[str]) -> list[str]:
    """Run a script once with each arguments, all from the same moment on; what each prints."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *each],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in arguments
    ]
    assert [process.stdout.readline() for process in started] == ["ready\n"] * len(started)
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started)
    return printed


@pytest.mark.parametrize("refusal", ["", *REFUSALS])
def test_two_processes_never_hold_a_lock_at_once(tmp_path, refusal):
    (tmp_path / "count").write_text("0")
    side_by_side(COUNTING, *[[refusal, str(tmp_path)]] * 2)
    assert (tmp_path / "count").read_text() == "30"


# ------------------------------------------------------------------ the cache


def test_the_cache_works_where_the_usual_lock_is_refused(tmp_path, refused, said):
    made = []

    def make(place=0):
        made.append(place)
        return {"a": torch.full((3,), float(place))}

    assert Cache(tmp_path).one("k", make)["a"].tolist() == [0, 0, 0]
    found = Cache(tmp_path).each(["k", "l", "m"], make)
    assert [each["a"][0].item() for each in found] == [0, 1, 2]
    assert made == [0, 1, 2] and not said


def test_the_cache_works_where_nothing_can_be_locked(tmp_path, unlockable, said):
    for _ in range(2):
        cache = Cache(tmp_path)
        found = cache.each(["k", "l"], lambda place: {"a": torch.full((1,), float(place))})
        assert [each["a"].item() for each in found] == [0, 1]
    assert len(said) == 1
    assert sorted(p.stem for p in tmp_path.glob("*.safetensors")) == ["k", "l"]


FULL = """
import json, resource, signal, sys, warnings
from pathlib import Path
import torch
from erasus_nb.cache import Cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = Cache(Path(sys.argv[1]))
small = cache.one("small", lambda: {"a": torch.ones(10)})
limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for key in ("one", "two"):
        value = cache.one(key, lambda: {"a": torch.arange(10.0**5)})
        assert value["a"].tolist() == list(range(10**5))
    assert cache.one("two", lambda: 1 / 0) is value, "it is kept in memory"
print(json.dumps([str(each.message) for each in said]))
"""


def test_a_cache_that_fills_up_in_the_middle_only_costs_time(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    (said,) = json.loads(ran.stdout)
    assert said.startswith(f"cache {tmp_path} takes no more (") and "in memory alone" in said
    assert {p.name for p in tmp_path.glob("*.safetensors")} == {"small.safetensors"}
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("failing", ["save_file", "replace"])
def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, said, failing):
    from erasus_nb import cache as module

    real = module.save_file

    def fails_half_way(tensors, path, metadata=None):
        real(tensors, path, metadata)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    def fails(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    if failing == "save_file":
        monkeypatch.setattr(module, "save_file", fails_half_way)
    else:
        monkeypatch.setattr(module.os, "replace", fails)
    cache = Cache(tmp_path)
    for key in "ab":
        assert cache.one(key, lambda: {"x": torch.ones(2)})["x"].tolist() == [1, 1]
    assert len(said) == 1 and "Disk quota exceeded" in str(said[0].message)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


def test_a_failure_of_what_makes_a_value_is_no_failure_of_the_cache(tmp_path):
    def cannot():
        raise ValueError("no such data")

    cache = Cache(tmp_path)
    with pytest.raises(ValueError, match="no such data"):
        cache.one("k", cannot)
    assert cache.one("k", lambda: {"x": torch.ones(1)})["x"].item() == 1  # nothing stays locked


# ------------------------------------------------------------------ documents


@pytest.fixture
def whole_seconds(monkeypatch):
    """A file system whose times are whole seconds, all of them the same one."""
    real = records.write_text

    def coarse(path, text):
        real(path, text)
        os.utime(path, (10**9, 10**9))

    monkeypatch.setattr(records, "write_text", coarse)


def test_two_writers_of_one_document_lose_nothing_where_times_are_coarse(tmp_path, whole_seconds):
    a, b = document(tmp_path), document(tmp_path)
    for number in range(10):  # names of one length: the files are of one size, too
        a.add(row("a", number))
        b.add(row("b", number))
    a.add(row("a", 0, "new"))
    b.add(row("b", 10))
    found = {(r.strategy, r.seed): r.key for r in records.read(a.path).rows}
    assert len(found) == 21 and found["a", 0] == "new"


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path, whole_seconds):
    a, b = document(tmp_path), document(tmp_path)
    a.add(row("a", 0, "one"))
    b.look()
    size = a.path.stat().st_size
    a.add(row("a", 0, "two"))
    assert a.path.stat().st_size == size
    b.look()
    assert b.row("a", 0).key == "two"
    b.add(row("b", 0))
    assert {r.key for r in records.read(a.path).rows} == {"two", "k"}


@pytest.mark.parametrize("refusal", ["", "ENOLCK"])
def test_four_processes_write_one_document(tmp_path, refusal):
    code = f"""
import errno, fcntl, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_locks
from pathlib import Path
if {refusal!r}:
    fcntl.flock = test_locks.refusing({refusal!r})
writer = test_locks.document(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(6):
    writer.add(test_locks.row(sys.argv[2], number))
"""
    side_by_side(code, *[[str(tmp_path), name] for name in "abcd"])
    path = tmp_path / "synthetic" / "reference.json"
    found = records.read(path).rows
    assert sorted((r.strategy, r.seed) for r in found) == [(n, k) for n in "abcd" for k in range(6)]
    assert not list(path.parent.glob("*.tmp"))
    assert not list(path.parent.glob(".*.soft"))  # a lock that is a file is gone when it is free


def test_documents_are_written_where_the_usual_lock_is_refused(tmp_path, refused, said):
    a, b = document(tmp_path), document(tmp_path)
    a.add(row("a", 0))
    with a.turn(("a", (0,))):
        b.add(row("b", 0))
    a.flush()
    assert {r.strategy for r in records.read(a.path).rows} == {"a", "b"} and not said
    json.loads(a.path.read_text("utf-8"))


def test_documents_are_written_where_nothing_can_be_locked(tmp_path, unlockable, said):
    writer = document(tmp_path)
    for number in range(3):
        writer.add(row("a", number))
    assert len(records.read(writer.path).rows) == 3 and len(said) == 1
