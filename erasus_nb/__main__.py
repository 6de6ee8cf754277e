"""The command line over papermill and jupyter-book: `python -m erasus_nb --help`.

Bad input is refused before any work, with one sentence and exit code 2; work that failed
ends with exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from . import ROOT, cells, parameters, profiles, records, sphinx_runs, workloads
from .workloads import identity


class Refused(Exception):
    """What was asked for cannot be done; the message is the sentence that is printed."""


# ------------------------------------------------------------------ run


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


def _read_value(name: str, text: str, what: parameters.Declared) -> Any:
    """A parameter as typed on the command line, as its declared type."""
    if what.default is None and text in ("None", "null", ""):
        return None
    kind = {"int": int, "float": float}.get(what.type)
    try:
        value = kind(text) if kind else text
    except ValueError:
        value = text  # convert() says what is wanted
    return parameters.convert(name, value, what)


def _values(name: str, given: Sequence[Sequence[str]], profile: str | None) -> dict[str, Any]:
    """The parameters of one notebook, checked against what it declares."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    known = parameters.declared(path)
    pairs = dict(given) | ({"profile": profile} if profile else {})
    try:
        parameters.check_names(pairs, path)
        values = {key: _read_value(key, text, known[key]) for key, text in pairs.items()}
        if "profile" in values:
            parameters.one_of("profile", values["profile"], tuple(profiles.PROFILES))
        for workload in values.get("workloads", []):
            parameters.one_of("workload", workload, workloads.WORKLOADS)
        for strategy in values.get("strategies", []):
            parameters.one_of("strategy", strategy, parameters.strategies_in(path))
        if values.get("seeds") is not None and values["seeds"] < 1:
            raise parameters.ParameterError("seeds must be at least 1")
    except parameters.ParameterError as error:
        raise parameters.ParameterError(f"{name}: {error}") from None
    if "workloads" in known and not values.get("workloads"):
        values["workloads"] = ["text"] if values.get("model") else _supported(name)
    if values.get("out"):
        values["out"] = str(Path(values["out"]).resolve())  # the kernel starts elsewhere
    for what in _SOURCES:
        folder, request = identity.split_request(values.get(what) or "")
        if folder and Path(folder).is_dir():
            values[what] = ":".join(filter(None, (str(Path(folder).resolve()), request)))
    return values


def _supported(name: str) -> list[str]:
    """Every workload that a strategy of the page runs on, in the book's order."""
    try:
        facts = [function.facts for function in cells.strategies(name).values()]
    except Exception as error:
        raise Refused(f"{name}: its tagged cells do not load: {error!r}") from error
    on = {workload for fact in facts for workload in (*fact.on, *fact.analogue_on)}
    return [workload for workload in workloads.WORKLOADS if workload in on]


def package_code() -> str:
    """Hash of the helper package but for what only drives and publishes runs."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*")):
        skipped = {"__main__.py", "sphinx_runs.py"} & {path.name} or "__pycache__" in path.parts
        if path.is_file() and not skipped:
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


#: Parameters that name models and data of others.
_SOURCES = ("model", "data", "retrained", "tokenizer")


def _stamp(name: str, values: dict[str, Any], package: str) -> str:
    code = [cells.text_of(cell) for _, cell in cells.code_cells(cells.notebook(name))]
    tuned = ROOT / "notebooks" / "tuned" / f"{name}.json"
    settings = tuned.read_text("utf-8") if tuned.is_file() else ""
    read = [identity.folder_stamp(values[what]) for what in _SOURCES if values.get(what)]
    text = json.dumps([package, code, settings, values, read], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _job(name: str, values: dict[str, Any], package: str) -> Job:
    steps = len(cells.notebook(name)["cells"])
    return Job(name, values, _stamp(name, values, package), steps)


def _is_done(job: Job) -> bool:
    """Whether the last run had this code, these parameters, and its rows are still there."""
    run = sphinx_runs.read_run(job.output) if job.output.is_file() else None
    if run is None or run["metadata"].get("erasus", {}).get("stamp") != job.stamp:
        return False
    if not sphinx_runs.finished(run):
        return False
    known = parameters.declared(job.source)
    value = lambda key: job.values.get(key, known[key].default if key in known else "")

    def written(board: str) -> bool:
        paths = (
            records.path_of(value("profile"), board, category, value("out"))
            for category in ("reference", job.name)
        )
        return all(path.is_file() for path in paths)

    request = f"-{asked}" if (asked := value("request") or "standard") != "standard" else ""
    if not value("model"):
        return all(written(f"{workload}{request}") for workload in job.values.get("workloads", []))
    # The hash at the end of such a board's name is that of weights that nobody has read yet;
    # that they are the same ones is what the stamp says.
    name = identity.board_slug(value("data"), value("model"))
    board = re.compile(rf"{re.escape(name)}(-[0-9a-f]{{8}})?{request}")
    profile = records.path_of(value("profile"), name, job.name, value("out")).parents[1]
    there = profile.iterdir() if profile.is_dir() else ()
    return any(board.fullmatch(folder.name) and written(folder.name) for folder in there)


class _Runner:
    """Runs jobs in processes of their own, a few at a time, and shows how far they are."""

    def __init__(self, jobs: list[Job], at_once: int):
        self.jobs, self.at_once = jobs, at_once
        self.running: dict[str, subprocess.Popen] = {}
        self.lock, self.stopping = threading.Lock(), False
        live = sys.stderr.isatty()
        self.bar = tqdm(
            total=sum(job.steps for job in jobs),
            unit="cell",
            dynamic_ncols=True,
            mininterval=0.5 if live else 15,
            maxinterval=1 if live else 60,
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} cells, {elapsed}",
        )

    def all(self) -> None:
        """Run every job; a failed one does not stop the others."""
        try:
            with ThreadPoolExecutor(self.at_once) as pool:
                try:
                    for done in [pool.submit(self._one, job) for job in self.jobs]:
                        done.result()
                except BaseException:
                    self._stop()
                    raise
        finally:
            self.bar.close()

    def _stop(self) -> None:
        """End the processes started here, and their kernels: each is a group of its own."""
        with self.lock:
            self.stopping = True
            for process in self.running.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)

    def _one(self, job: Job) -> None:
        start = time.monotonic()
        command = [sys.executable, "-m", "papermill", str(job.source), str(job.part)]
        command += ["--cwd", str(ROOT), "--progress-bar", "-y", yaml.safe_dump(job.values)]
        environment = {**_ALLOCATOR, **os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self.lock:
            if self.stopping:
                return
            process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )
            self.running[job.name] = process
        self._describe()
        # Universal newlines turn the carriage returns of papermill's own bar into lines.
        for line in process.stderr:
            self._listen(job, line.rstrip())
        code = process.wait()
        job.seconds = time.monotonic() - start
        if code == 0:
            try:
                self._keep(job)
                job.ok = True
            except (OSError, ValueError) as error:
                job.tail.append(f"the executed notebook could not be kept: {error}")
        with self.lock:
            del self.running[job.name]
            self.bar.update(job.steps - job.step)
        self._describe()
        said = "done" if job.ok else f"FAILED (papermill exit code {code})"
        tqdm.write(f"{job.name:<12} {said} after {_clock(job.seconds)}", file=sys.stderr)

    def _listen(self, job: Job, line: str) -> None:
        at = re.search(r"(\d+)/(\d+) \[", line)
        if not at:
            if line.strip():
                job.tail.append(re.sub(r"\x1b\[[0-9;]*m", "", line))
            return
        step = min(int(at[1]), job.steps)
        with self.lock:
            self.bar.update(max(0, step - job.step))
            job.step = max(step, job.step)

    def _describe(self) -> None:
        with self.lock:
            # Into a log file, only what time or a finished notebook calls for.
            text = ", ".join(self.running) or "finished"
            self.bar.set_description_str(text, refresh=sys.stderr.isatty())

    def _keep(self, job: Job) -> None:
        """Note what was run in the executed notebook, then put it in its place in one step."""
        run = json.loads(job.part.read_text("utf-8"))
        run["metadata"]["erasus"] = {"stamp": job.stamp}
        records.write_text(job.output, json.dumps(run, indent=1))
        job.part.unlink()


#: glibc gives freed memory back to the system at once and asks for it again at the next step.
#: Kept, a page on the language model takes about 3 % less time.
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(10**9), "MALLOC_MMAP_THRESHOLD_": str(2**25)}


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


#: The order in which two processes end at about the same time, on the language model; a page
#: that is not named starts after them.
_ORDER = ("data", "llm", "gradient", "parameter", "ensemble")


def run(args: argparse.Namespace) -> int:
    """Run notebooks with papermill into _runs/, several at once; finished ones are skipped."""
    pages = sphinx_runs.categories(ROOT)
    for name in args.categories:
        if name not in pages:
            raise Refused(f"there is no category {name!r}; there are {', '.join(pages)}")
    if args.jobs is not None and args.jobs < 1:
        raise Refused("--jobs must be at least 1")
    chosen = list(dict.fromkeys(args.categories)) or pages
    if not chosen:
        raise Refused("there are no notebooks to run in notebooks/")
    values = {name: _values(name, args.parameters, args.profile) for name in chosen}
    package = package_code()
    place = {name: number for number, name in enumerate(_ORDER)}
    chosen.sort(key=lambda name: place.get(name, len(place)))
    jobs = [_job(name, values[name], package) for name in chosen]
    done = [] if args.force else [job for job in jobs if _is_done(job)]
    for job in done:
        print(f"{job.name:<12} is up to date", file=sys.stderr)
    left = [job for job in jobs if job not in done]
    if not left:
        return 0
    (ROOT / "_runs").mkdir(exist_ok=True)
    # One accelerator is shared badly: more than one at once is for who asks for it.
    usual = 1 if any(job.values.get("device") == "cuda" for job in left) else _cores()
    at_once = min(args.jobs or usual, len(left))
    print(f"running {', '.join(job.name for job in left)}; {at_once} at once", file=sys.stderr)
    start = time.monotonic()
    _Runner(left, at_once).all()
    failed = [job for job in left if not job.ok]
    for job in failed:
        print(f"\n{job.name} failed; the last lines of what it said:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in list(job.tail)[-15:]), file=sys.stderr)
        print(f"  the run so far: {job.part.relative_to(ROOT)}", file=sys.stderr)
    print(
        f"\n{len(left) - len(failed)} of {len(left)} notebooks finished "
        f"in {_clock(time.monotonic() - start)}",
        file=sys.stderr,
    )
    return 1 if failed else 0


# ------------------------------------------------------------------ book, board, export


def book(args: argparse.Namespace) -> int:
    """Build the site from the executed notebooks and the rows; warnings are errors."""
    main = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", main, "build", ".", "-W", "--keep-going"]
    code = subprocess.run(command, cwd=ROOT).returncode
    index = ROOT / "_build" / "html" / "index.html"
    if index.is_file():
        print(f"\nThe site: {index.as_uri()}")
    if code:
        print("The build had warnings or errors; they are listed above.", file=sys.stderr)
    return 1 if code else 0


def _folder(given: str | None) -> Path:
    if given:
        folder = Path(given)
        if not any(folder.glob("*/*.json")):
            raise Refused(f"{given} has no rows (<workload>/<category>.json)")
        return folder
    folder = sphinx_runs.choose_rows(ROOT)
    if folder is None:
        raise Refused("there are no rows yet: `make book` measures them; --rows names a folder")
    return folder


def board(args: argparse.Namespace) -> int:
    """Print the boards computed from a folder of rows."""
    from . import score

    boards = score.boards(_folder(args.rows))
    if args.workload is not None and args.workload not in boards:
        raise Refused(
            f"these rows have no workload {args.workload!r}; there are {', '.join(boards)}"
        )
    shown = [found for name, found in boards.items() if args.workload in (None, name)]
    as_text = {
        "md": lambda *some: "\n".join(map(score.markdown, some)),
        "csv": score.csv_text,
        "json": score.json_text,
    }
    print(as_text[args.format](*shown), end="")
    return 0


def tune(args: argparse.Namespace) -> int:
    """Choose every strategy's settings on the tuning seeds; writes notebooks/tuned/."""
    from . import tuning
    from .workloads import WORKLOADS

    pages = sphinx_runs.categories(ROOT)
    for name, allowed in [(c, pages) for c in args.categories] + [
        (w, WORKLOADS) for w in args.workload
    ]:
        if name not in allowed:
            raise Refused(f"there is no {name!r}; there are {', '.join(allowed)}")
    for category in args.categories or pages:
        for workload in args.workload or WORKLOADS:
            tuning.tune(category, workload)
    return 0


def export(args: argparse.Namespace) -> int:
    """Write every notebook's tagged cells to _build/cells/, for editors and type checkers."""
    for name in cells.names():
        print(cells.export(name).relative_to(ROOT))
    return 0


# ------------------------------------------------------------------ publish

#: What a row depends on; rows are published only for the committed state of these.
_CODE = ("erasus_nb", "notebooks", "requirements.txt")


#: Modules that only read rows, or only start runs: no row depends on them.
_READS_ROWS = ("__main__.py", "book.py", "charts.py", "score.py", "sphinx_runs.py", "tuning.py")


def _git(*arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        raise Refused("publishing needs git, to tell which code the rows were made with") from None


def _same_code(category: str, a: str, b: str) -> bool:
    """Whether two commits agree on everything that a category's rows depend on.

    Of the notebooks only its own, with its tuned settings; the references have none.
    """
    if not re.fullmatch("[0-9a-f]{7,40}", a):  # from a file: never an option of git's
        return False
    own = (f"notebooks/{category}.ipynb", f"notebooks/tuned/{category}.json")
    only_read = [f":!erasus_nb/{name}" for name in _READS_ROWS]
    paths = ("erasus_nb", "requirements.txt", *own, *only_read)
    return a == b or _git("diff", "--quiet", a, b, "--", *paths).returncode == 0


def _objections(profile: str, found: dict[str, list[records.Document]]) -> list[str]:
    """Why a run cannot be published, a sentence each."""
    from . import score

    documents = [document for group in found.values() for document in group]
    lacking = sphinx_runs.unfinished(ROOT / "results" / profile, sphinx_runs.categories(ROOT))
    wrong = [f"the run is unfinished: it lacks {', '.join(lacking)}"] if lacking else []
    for workload, group in found.items():
        if not lacking:
            failed = [gate for gate in score.board(group).gates if not gate.passed]
            wrong += [f"{workload} misses the gate {gate.name!r}" for gate in failed]
        seeds = {row.seed for d in group for row in d.rows if row.kind == "original"}
        for document in group:
            named = f"{workload}/{document.category}"
            if document.profile != profile:
                wrong.append(f"{named} is of profile {document.profile}")
            if document.environment.dirty:
                wrong.append(f"{named} was made from uncommitted code")
            for strategy in dict.fromkeys(row.strategy for row in document.rows):
                ran = {row.seed for row in document.rows if row.strategy == strategy}
                if ran != seeds:
                    wrong.append(
                        f"{named} is unfinished: {strategy} has {len(ran)} of {len(seeds)} seeds"
                    )
    if _git("status", "--porcelain", "--", *_CODE).stdout.strip():
        wrong.append(f"{', '.join(_CODE)} have uncommitted changes")
    made = sorted({(d.category, d.environment.commit) for d in documents})
    for category, commit in made:
        if not _same_code(category, commit, "HEAD"):
            wrong.append(
                f"{category} rows of commit {commit[:10]} were made with other code than HEAD's"
            )
    return wrong


def publish(args: argparse.Namespace) -> int:
    """Copy a clean, finished run's rows to results/published/, replacing what is there."""
    if args.profile not in sphinx_runs.BOARD_PROFILES:
        allowed = " or ".join(sphinx_runs.BOARD_PROFILES)
        raise Refused(f"rows of profile {args.profile!r} are never published; only {allowed}")
    found = records.load(ROOT / "results" / args.profile)
    wrong = _objections(args.profile, found)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Refused(f"not published: {wrong[0]}{more}")
    target = ROOT / "results" / sphinx_runs.PUBLISHED
    written = set()
    for workload, documents in found.items():
        for document in documents:
            path = target / workload / f"{document.category}.json"
            records.write(path, document)
            written.add(path)
            print(path.relative_to(ROOT))
    for path in set(target.glob("*/*.json")) - written:  # of an earlier run
        path.unlink()
    return 0


# ------------------------------------------------------------------ the command line


def _describe(parsers, function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    """A subcommand named and described by its function."""
    said = function.__doc__.splitlines()[0]
    parser = parsers.add_parser(function.__name__, help=said, description=said)
    parser.set_defaults(function=function)
    return parser


def parser() -> argparse.ArgumentParser:
    """The command line; a further command is a function and three lines here."""
    top = argparse.ArgumentParser(
        prog="python -m erasus_nb", description="Run the notebooks, build the book, read the rows."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    each = _describe(commands, run)
    each.add_argument(
        "categories", nargs="*", metavar="CATEGORY", help="pages to run; default: all"
    )
    each.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the notebooks, any number of times; a list is written a,b,c",
    )
    each.add_argument("--profile", choices=tuple(profiles.PROFILES), help="size of the run")
    each.add_argument(
        "--jobs", type=int, metavar="N", help="notebooks at once; default: one a core"
    )
    each.add_argument("--force", action="store_true", help="run up-to-date notebooks too")

    _describe(commands, book)

    each = _describe(commands, board)
    each.add_argument("--workload", help="only this one")
    each.add_argument("--format", choices=("md", "csv", "json"), default="md")
    each.add_argument("--rows", metavar="FOLDER", help="folder of <workload>/<category>.json")

    each = _describe(commands, publish)
    each.add_argument("--profile", default="laptop", help="whose rows; default: laptop")

    each = _describe(commands, tune)
    each.add_argument("categories", nargs="*", metavar="CATEGORY", help="default: all")
    each.add_argument("--workload", action="append", default=[], help="only these")

    _describe(commands, export)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)
    try:
        return args.function(args)
    except (Refused, records.RecordError, ValueError) as error:
        print(f"erasus_nb: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
