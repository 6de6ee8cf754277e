"""The command line over papermill and jupyter-book: `python -m erasus_nb --help`.

Bad input is refused before any work, with one sentence and exit code 2; work that failed
ends with exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from . import (
    ROOT,
    book_pdf,
    cells,
    keys,
    parameters,
    profiles,
    records,
    selection,
    sphinx_runs,
    workloads,
)
from .runner import Job, Runner, check_writable, clock, cores, kernel_environment
from .workloads import identity


class Refused(Exception):
    """What was asked for cannot be done; the message is the sentence that is printed."""


# ------------------------------------------------------------------ run


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
            parameters.one_of("strategy", strategy, _strategies(name))
        if values.get("seeds") is not None and values["seeds"] < 1:
            raise parameters.ParameterError("seeds must be at least 1")
        if values.get("model"):
            asked = values.get("workloads", ())
            values["workloads"] = [workloads.made_for(name, values["model"], asked)]
    except ValueError as error:
        raise parameters.ParameterError(f"{name}: {error}") from None
    if "workloads" in known and not values.get("workloads"):
        values["workloads"] = _supported(name)
    if values.get("out"):
        values["out"] = str(Path(values["out"]).resolve())  # the kernel starts elsewhere
    for what in _SOURCES:
        folder, request = identity.split_request(values.get(what) or "")
        if folder and Path(folder).is_dir():
            values[what] = ":".join(filter(None, (str(Path(folder).resolve()), request)))
    return values


def _strategies(name: str) -> list[str]:
    """The strategies that a page can run: its own, or those of all pages on a guide."""
    pages = selection.categories(ROOT) if name in selection.GUIDES else [name]
    return [s for p in pages for s in parameters.strategies_in(ROOT / "notebooks" / f"{p}.ipynb")]


def _supported(name: str, among: Sequence[str] = workloads.WORKLOADS) -> list[str]:
    """Of some workloads, those that a strategy of the page runs on."""
    try:
        facts = [function.facts for function in cells.strategies(name).values()]
    except Exception as error:
        raise Refused(f"{name}: its tagged cells do not load: {error!r}") from error
    able = lambda workload: any(f.form_on(workload, _provides(workload)) for f in facts)
    return [workload for workload in among if able(workload)]


@cache
def _provides(workload: str) -> Mapping[str, Any]:
    """What a workload provides. Every page asks, and to load one takes about a second."""
    return workloads.load(workload, "smoke").provides


def package_code() -> str:
    """Hash of the modules that a page imports, and those that it finds by name."""
    return keys.sources().pages_code()


def guide_code() -> str:
    """The same, with what only a guide imports."""
    return keys.sources().pages_code(f"{keys.PACKAGE}.own")


#: Parameters that name models and data of others.
_SOURCES = ("model", "data", "retrained", "tokenizer")


def _stamp(name: str, values: dict[str, Any], package: str) -> str:
    code = [cells.text_of(cell) for _, cell in cells.code_cells(cells.notebook(name))]
    beside = [ROOT / "notebooks" / folder / f"{name}.json" for folder in ("tuned", "sweeps")]
    settings = [path.read_text("utf-8") if path.is_file() else "" for path in beside]
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
    name = identity.board_slug(job.values["workloads"][0], value("data"), value("model"))
    board = re.compile(rf"{re.escape(name)}(-[0-9a-f]{{8}})?{request}")
    profile = records.path_of(value("profile"), name, job.name, value("out")).parents[1]
    there = profile.iterdir() if profile.is_dir() else ()
    return any(board.fullmatch(folder.name) and written(folder.name) for folder in there)


#: The order in which two processes end at about the same time; a page that is not named starts
#: after them. On some workloads alone, the page that is at home there takes longest.
_ORDER = ("data", "llm", "vlm", "diffusion", "gradient", "parameter", "ensemble")


def _declaring(pages: list[str], names: set[str]) -> list[str]:
    """The pages that declare all of these parameters, the others said; all where no page does."""
    known = {page: parameters.declared(ROOT / "notebooks" / f"{page}.ipynb") for page in pages}
    found = [page for page in pages if names <= set(known[page])]
    if not found or found == pages:
        return pages  # what is strange in all of them is refused by the first
    without = ", ".join(page for page in pages if page not in found)
    print(
        f"left out, as not all of {', '.join(sorted(names))} are parameters there: {without}",
        file=sys.stderr,
    )
    return found


def _able(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Parameters of pages -> the same, each page with the workloads that it can run on.

    A page that can run on none of those asked for is left out, and it is said.
    """
    found = {}
    for page, given in values.items():
        asked = given["workloads"]
        if able := _supported(page, asked):
            found[page] = {**given, "workloads": able}
        else:
            print(f"left out, as it can run on none of {', '.join(asked)}: {page}", file=sys.stderr)
    return found


def run(args: argparse.Namespace) -> int:
    """Run notebooks with papermill into _runs/, several at once; finished ones are skipped."""
    pages = selection.runnable(ROOT)
    for name in args.categories:
        if name not in pages:
            raise Refused(f"there is no category {name!r}; there are {', '.join(pages)}")
    if args.jobs is not None and args.jobs < 1:
        raise Refused("--jobs must be at least 1")
    chosen = list(dict.fromkeys(args.categories)) or pages
    if not chosen:
        raise Refused("there are no notebooks to run in notebooks/")
    given = set() if args.categories else set(dict(args.parameters))
    if given:
        chosen = _declaring(chosen, given)
    values = {name: _values(name, args.parameters, args.profile) for name in chosen}
    # A model says itself which workload it is for.
    if "workloads" in given and "model" not in given:
        values = _able(values)
        chosen = list(values)
    strays = [] if args.categories else cells.strays_in(ROOT / "notebooks")
    if strays:
        print(f"left out, as _toc.yml does not list them: {', '.join(strays)}", file=sys.stderr)
    package = package_code()
    place = {name: number for number, name in enumerate(_ORDER)}
    at_home = {
        name
        for name in chosen
        if "workloads" in given and workloads.home(name) in values[name].get("workloads", ())
    }
    chosen.sort(key=lambda name: (name not in at_home, place.get(name, len(place))))
    jobs = [
        _job(name, values[name], guide_code() if name in selection.GUIDES else package)
        for name in chosen
    ]
    done = [] if args.force else [job for job in jobs if _is_done(job)]
    for job in done:
        print(f"{job.name:<12} is up to date", file=sys.stderr)
    left = [job for job in jobs if job not in done]
    if not left:
        return 0
    check_writable(ROOT / "_runs")
    # One accelerator is shared badly: more than one at once is for who asks for it.
    usual = 1 if any(job.values.get("device") == "cuda" for job in left) else cores()
    at_once = min(args.jobs or usual, len(left))
    print(f"running {', '.join(job.name for job in left)}; {at_once} at once", file=sys.stderr)
    start = time.monotonic()
    Runner(left, at_once).all()
    failed = [job for job in left if not job.ok]
    for job in failed:
        print(f"\n{job.name} failed; the last lines of what it said:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in list(job.tail)[-15:]), file=sys.stderr)
        print(f"  the run so far: {job.part.relative_to(ROOT)}", file=sys.stderr)
    print(
        f"\n{len(left) - len(failed)} of {len(left)} notebooks finished "
        f"in {clock(time.monotonic() - start)}",
        file=sys.stderr,
    )
    return 1 if failed else 0


# ------------------------------------------------------------------ book, board, export


def _jupyter_book(*arguments: str) -> int:
    """Run jupyter-book's build on the project; warnings are errors. Returns its exit code."""
    main = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", main, "build", ".", "-W", "--keep-going", *arguments]
    check_writable(ROOT / "_build")
    with tempfile.TemporaryDirectory(prefix="erasus-") as folder:
        environment = kernel_environment(Path(folder))
        # What the terminal cannot show stops no build.
        environment["PYTHONIOENCODING"] = f"{sys.stdout.encoding or 'utf-8'}:backslashreplace"
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if code:
        print("The build had warnings or errors; they are listed above.", file=sys.stderr)
    return code


def book(args: argparse.Namespace) -> int:
    """Build the site from the executed notebooks and the rows; warnings are errors."""
    code = _jupyter_book()
    index = ROOT / "_build" / "html" / "index.html"
    if index.is_file():
        print(f"\nThe site: {index.as_uri()}")
    return 1 if code else 0


def pdf(args: argparse.Namespace) -> int:
    """Print the book as one PDF with Chromium, and build the site with a link to it."""
    book_pdf.browser()  # that it is missing is said before any work
    if _jupyter_book("--builder", "singlehtml"):
        return 1
    path = book_pdf.make(ROOT / "_build" / "singlehtml" / "intro.html")
    print(f"\nThe book: {path.as_uri()}, {path.stat().st_size / 1e6:.1f} MB")
    return book(args)


def _folder(given: str | None) -> Path:
    if given:
        folder = Path(given)
        if not records.paths(folder):
            raise Refused(f"{given} has no rows (<workload>/<category>.json)")
        return folder
    folder = selection.choose_rows(ROOT)
    if folder is None:
        raise Refused("there are no rows yet: `make book` measures them; --rows names a folder")
    return folder


def board(args: argparse.Namespace) -> int:
    """Print the boards computed from a folder of rows."""
    from . import score

    rows = selection.usable(_folder(args.rows), ROOT)
    boards = score.boards_of(rows)
    if args.workload is not None and args.workload not in boards:
        aside = rows.left_aside(args.workload) if args.workload in rows.aside else ""
        raise Refused(
            f"these rows have no workload {args.workload!r}; there are {', '.join(boards)}"
            + (f". {aside}" if aside else "")
        )
    shown = [found for name, found in boards.items() if args.workload in (None, name)]
    # A board says itself what it leaves aside; a workload without one cannot.
    silent = [name for name in rows.aside if name not in boards]
    for name in silent if args.workload is None else ():
        print(f"{name} has no board: {rows.left_aside(name)}", file=sys.stderr)
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

    pages = selection.categories(ROOT)
    for name, allowed in [(c, pages) for c in args.categories] + [
        (w, WORKLOADS) for w in args.workload
    ]:
        if name not in allowed:
            raise Refused(f"there is no {name!r}; there are {', '.join(allowed)}")
    for category in args.categories or pages:
        for workload in args.workload or WORKLOADS:
            tuning.tune(category, workload)
    return 0


def sweep(args: argparse.Namespace) -> int:
    """Measure what moving one setting does, for the pages' pictures; writes notebooks/sweeps/."""
    from . import sweeps

    pages = selection.categories(ROOT)
    for name in args.categories:
        if name not in pages:
            raise Refused(f"there is no {name!r}; there are {', '.join(pages)}")
    for name in args.categories or pages:
        sweeps.measure(name)
    return 0


def export(args: argparse.Namespace) -> int:
    """Write every notebook's tagged cells to _build/cells/, for editors and type checkers."""
    for name in cells.names():
        print(cells.export(name).relative_to(ROOT))
    return 0


# ------------------------------------------------------------------ publish

#: What rows depend on; they are published only for the committed state of these.
_CODE = ("erasus_nb", "notebooks", "requirements.txt")


def _git(*arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        raise Refused("publishing needs git, to tell which code the rows were made with") from None


def _objections(profile: str, found: dict[str, list[records.Document]]) -> list[str]:
    """Why a run cannot be published, a sentence each."""
    from . import score

    lacking = selection.unfinished(ROOT / "results" / profile, selection.categories(ROOT))
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
            if any(row.made.dirty for row in document.rows):
                wrong.append(f"{named} has rows of uncommitted code")
            for strategy in dict.fromkeys(row.strategy for row in document.rows):
                ran = {row.seed for row in document.rows if row.strategy == strategy}
                if ran != seeds:
                    wrong.append(
                        f"{named} is unfinished: {strategy} has {len(ran)} of {len(seeds)} seeds"
                    )
    if _git("status", "--porcelain", "--", *_CODE).stdout.strip():
        wrong.append(f"{', '.join(_CODE)} have uncommitted changes")
    return wrong


def publish(args: argparse.Namespace) -> int:
    """Copy a clean, finished run's rows to results/published/, replacing what is there."""
    if args.profile not in selection.BOARD_PROFILES:
        allowed = " or ".join(selection.BOARD_PROFILES)
        raise Refused(f"rows of profile {args.profile!r} are never published; only {allowed}")
    rows = selection.load(ROOT / "results" / args.profile, ROOT)
    if aside := rows.left_aside():
        print(aside, file=sys.stderr)
    wrong = _objections(args.profile, rows.documents)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Refused(f"not published: {wrong[0]}{more}")
    try:
        _replace(ROOT / "results" / selection.PUBLISHED, rows.documents)
    except OSError as error:
        raise Refused(f"not published: results/ cannot be written ({error.strerror})") from error
    return 0


def _replace(target: Path, found: dict[str, list[records.Document]]) -> None:
    """All or nothing: whoever looks meanwhile sees the old rows or the new ones."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".publish-") as scratch:
        fresh, old = Path(scratch) / "fresh", Path(scratch) / "old"
        paths = []
        for workload, documents in found.items():
            for document in documents:
                paths.append(fresh / workload / f"{document.category}.json")
                records.write(paths[-1], document)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    for path in paths:
        print((target / path.relative_to(fresh)).relative_to(ROOT))


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
    _describe(commands, pdf)

    each = _describe(commands, board)
    each.add_argument("--workload", help="only this one")
    each.add_argument("--format", choices=("md", "csv", "json"), default="md")
    each.add_argument("--rows", metavar="FOLDER", help="folder of <workload>/<category>.json")

    each = _describe(commands, publish)
    each.add_argument("--profile", default="laptop", help="whose rows; default: laptop")

    each = _describe(commands, tune)
    each.add_argument("categories", nargs="*", metavar="CATEGORY", help="default: all")
    each.add_argument("--workload", action="append", default=[], help="only these")

    each = _describe(commands, sweep)
    each.add_argument("categories", nargs="*", metavar="CATEGORY", help="default: all")

    _describe(commands, export)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal or file that cannot show "—" gets \u2014
            stream.reconfigure(errors="backslashreplace")
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
