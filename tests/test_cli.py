"""The command line: what it refuses before any work, what it runs, prints and publishes."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fabricate
import psutil
import pytest
import yaml
from test_site import code, md, notebook

from erasus_nb import __main__ as cli
from erasus_nb import cells, execute, progress, records, runner, workloads

PARAMETERS = """
workloads: list = []  # where to run
strategies: list = []  # which
profile: str = "laptop"  # size
seeds: int = None  # how many
rate: float = 0.1  # a number
loud: bool = False  # a switch
out: str = ""  # folder
""".strip()
SETUP = "from marks import strategy"
#: The mark without torch behind it, which no notebook here needs and every kernel would load.
MARKS = """
from types import SimpleNamespace
def strategy(**facts):
    def mark(function):
        runs = lambda workload, provides: "native" if workload in facts["on"] else None
        function.facts = SimpleNamespace(form_on=runs, **facts)
        return function
    return mark
"""
STRATEGY = """
@strategy(category="Gradient", cite="x", reads=("forget",), on=("digits", "synthetic"))
def ant(model, forget, retain, task, *, seed=0):
    return model
""".strip()
#: Writes what it was given, and the documents that a finished run leaves.
WORK = """
import json
from pathlib import Path
given = [workloads, strategies, profile, seeds, rate, loud, out]
with open("given.jsonl", "a") as file:
    file.write(json.dumps(["%s", *given]) + "\\n")
for workload in workloads:
    for category in ("reference", "%s"):
        path = Path(out or "results") / profile / workload / f"{category}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
"""


def page(name, *more):
    return notebook(
        md(f"# {name}\n\nQuestion?"),
        code(PARAMETERS, "parameters"),
        code(SETUP, "setup"),
        code(STRATEGY, "strategy"),
        code(WORK % (name, name)),
        *more,
    )


@pytest.fixture
def scratch(monkeypatch):
    """A place of this test's own for temporary files; its name is short, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="e") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def project(tmp_path, monkeypatch, scratch):
    """A project with two pages and a leaderboard in a folder of its own."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(cells, "ROOT", tmp_path)
    monkeypatch.setattr(cells, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(cells, "EXPORTS", tmp_path / "_build" / "cells")
    monkeypatch.delenv("ERASUS_ROWS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "marks.py").write_text(MARKS)
    for name in ("gradient", "data", "leaderboard"):
        write(tmp_path, name, page(name))
    return tmp_path


def write(project, name, nb):
    (project / "notebooks" / f"{name}.ipynb").write_text(json.dumps(nb))


def given(project):
    path = project / "given.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


# ------------------------------------------------------------------ refused before any work


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["gradeint"], "there is no category 'gradeint'; there are data, gradient"),
        (["leaderboard"], "there is no category 'leaderboard'"),
        (["-p", "sed", "1"], "there is no parameter 'sed'; there are workloads, strategies"),
        (["-p", "seeds", "many"], "seeds must be a whole number; got 'many'"),
        (["-p", "seeds", "0"], "seeds must be at least 1"),
        (["-p", "rate", "fast"], "rate must be a number"),
        (["-p", "loud", "yes"], "loud must be True or False"),
        (["-p", "profile", "big"], "there is no profile 'big'; there are smoke, laptop, full"),
        (["-p", "workloads", "digits,moons"], "there is no workload 'moons'"),
        (["-p", "strategies", "bee"], "there is no strategy 'bee'; there are ant"),
        (["--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_any_work(project, capsys, arguments, said):
    assert cli.main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (project / "_runs").exists() and not given(project)


def test_a_page_that_does_not_load_is_named(project, capsys):
    write(project, "data", page("data", code("def f(:\n    pass", "strategy")))
    assert cli.main(["run", "data"]) == 2
    assert "data: its tagged cells do not load: SyntaxError" in capsys.readouterr().err


def test_an_unknown_profile_or_command_is_argparse_business(project, capsys):
    for arguments in (["run", "--profile", "big"], ["frobnicate"], []):
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == 2
    assert "smoke" in capsys.readouterr().err


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0
    for command in ("run", "book", "pdf", "board", "publish", "export"):
        assert f"\n    {command} " in shown


# ------------------------------------------------------------------ running


def test_a_run_keeps_types_fills_workloads_and_is_not_repeated(project, capsys):
    arguments = ["run", "gradient", "-p", "rate", "1e-5", "-p", "loud", "true"]
    arguments += ["-p", "strategies", "ant", "-p", "seeds", "2"]
    assert cli.main(arguments) == 0
    every = ["synthetic", "digits"]
    assert given(project) == [["gradient", every, ["ant"], "laptop", 2, 1e-5, True, ""]]
    assert "gradient     done" in capsys.readouterr().err
    assert [p.name for p in (project / "_runs").iterdir()] == ["gradient.ipynb"]

    assert cli.main(arguments) == 0
    assert "gradient     is up to date" in capsys.readouterr().err
    assert len(given(project)) == 1


def test_what_makes_a_finished_run_out_of_date(project, monkeypatch):
    values = {"workloads": ["digits"], "profile": "laptop"}
    run = page("gradient")
    for count, cell in enumerate((c for c in run["cells"] if c["cell_type"] == "code"), 1):
        cell["execution_count"] = count
    run["metadata"]["language_info"] = {}
    job = cli._job("gradient", values, cli.package_code())
    run["metadata"]["erasus"] = {"stamp": job.stamp}
    (project / "_runs").mkdir()
    job.output.write_text(json.dumps(run))
    rows = [
        project / "results" / "laptop" / "digits" / f"{c}.json" for c in ("reference", "gradient")
    ]
    for path in rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    again = lambda package=cli.package_code(), **more: cli._job("gradient", values | more, package)
    assert cli._is_done(again())
    assert not cli._is_done(again(seeds=3))
    assert not cli._is_done(again("other package code"))

    tuned = project / "notebooks" / "tuned" / "gradient.json"
    tuned.parent.mkdir()
    tuned.write_text("{}")
    assert not cli._is_done(again())
    tuned.unlink()

    retold = page("gradient", md("More prose."))
    write(project, "gradient", retold)
    assert cli._is_done(again())
    write(project, "gradient", page("gradient", code("x = 1")))
    assert not cli._is_done(again())
    write(project, "gradient", page("gradient"))

    rows[0].unlink()
    assert not cli._is_done(again())
    rows[0].write_text("{}")
    job.output.write_text(job.output.read_text()[:-20])
    assert not cli._is_done(again())


def test_a_failing_page_is_shown_and_does_not_stop_the_others(project, capsys):
    write(project, "data", page("data", code("raise ValueError('the reason it failed')")))
    (project / "_runs").mkdir()
    (project / "_runs" / "data.ipynb").write_text("the last good run")
    assert cli.main(["run", "--jobs", "2", "-p", "workloads", "digits"]) == 1
    error = capsys.readouterr().err
    assert "gradient     done" in error and "data         FAILED" in error
    assert "the reason it failed" in error and "1 of 2 notebooks finished" in error
    assert (project / "_runs" / "data.ipynb").read_text() == "the last good run"
    assert (project / "_runs" / ".data.part.ipynb").is_file()
    assert (project / "_runs" / "gradient.ipynb").is_file()


def test_strays_are_left_out_with_a_line(project, capsys):
    chapters = [{"file": f"notebooks/{name}"} for name in ("gradient", "leaderboard")]
    (project / "_toc.yml").write_text(yaml.safe_dump({"root": "intro", "chapters": chapters}))
    write(project, "Untitled", notebook(code("")))
    write(project, "gradient", tiny("print(1)"))
    assert cli.main(["run", "-p", "profile", "nosuch"]) == 2
    assert "Untitled" not in capsys.readouterr().err
    assert cli.main(["run"]) == 0
    error = capsys.readouterr().err
    assert "left out, as _toc.yml does not list them: Untitled, data\n" in error
    assert cli.main(["run", "gradient"]) == 0
    assert "left out" not in capsys.readouterr().err
    assert [path.stem for path in (project / "_runs").glob("*")] == ["gradient"]


def test_without_names_a_page_runs_on_those_workloads_that_it_can_run_on(project, capsys):
    elsewhere = STRATEGY.replace('"digits", "synthetic"', '"text"')
    cells = [code(PARAMETERS, "parameters"), code(SETUP, "setup"), code(elsewhere, "strategy")]
    write(project, "gradient", notebook(*cells, code(WORK % ("gradient", "gradient"))))
    assert cli.main(["run", "-p", "workloads", "digits,text", "--profile", "smoke"]) == 0
    assert sorted(line[:2] for line in given(project)) == [
        ["data", ["digits"]],
        ["gradient", ["text"]],
    ]
    assert cli.main(["run", "-p", "workloads", "digits", "--profile", "smoke", "--force"]) == 0
    assert "left out, as it can run on none of digits: gradient\n" in capsys.readouterr().err
    assert [line[:2] for line in given(project)][2:] == [["data", ["digits"]]]


def test_on_some_workloads_the_page_at_home_there_starts_first(project, capsys):
    everywhere = STRATEGY.replace('"digits", "synthetic"', '"digits", "text"')
    for name in ("data", "llm"):
        cells = [code(PARAMETERS, "parameters"), code(SETUP, "setup"), code(everywhere, "strategy")]
        write(project, name, notebook(*cells, code(WORK % (name, name))))
    order = {
        "text": "llm, data",
        "digits": "data, llm, gradient",
        "text,digits": "llm, data, gradient",
    }
    for asked, first in order.items():
        assert cli.main(["run", "-p", "workloads", asked, "--profile", "smoke", "--force"]) == 0
        assert f"running {first}; " in capsys.readouterr().err


def test_a_run_opens_only_the_workloads_that_it_is_asked_for(project, monkeypatch):
    opened = []
    real = workloads.load
    monkeypatch.setattr(workloads, "load", lambda name, *a: opened.append(name) or real(name, *a))
    cli._provides.cache_clear()
    assert cli.main(["run", "-p", "workloads", "synthetic", "--profile", "smoke"]) == 0
    assert opened == ["synthetic"]


def test_a_parameter_runs_the_pages_that_have_it(project, capsys):
    write(project, "gradient", tiny("print(1)"))
    assert cli.main(["run", "-p", "out", str(project / "rows"), "--profile", "smoke"]) == 0
    error = capsys.readouterr().err
    assert "left out, as not all of out are parameters there: gradient\n" in error
    assert [path.stem for path in (project / "_runs").glob("*.ipynb")] == ["data"]
    assert cli.main(["run", "gradient", "-p", "out", "rows"]) == 2, "a named page is not left out"
    assert "gradient: there is no parameter 'out'" in capsys.readouterr().err
    assert cli.main(["run", "-p", "nosuch", "1"]) == 2
    assert "there is no parameter 'nosuch'" in capsys.readouterr().err


# ------------------------------------------------------------------ runs that start for everybody


def tiny(*sources):
    """A page of a parameter and some cells: it needs no strategies and writes no rows."""
    return notebook(code("profile: str = 'laptop'  # size", "parameters"), *map(code, sources))


def leftovers():
    return set(Path(tempfile.gettempdir()).glob("erasus-*"))


def test_eight_notebooks_start_at_once(project, capsys):
    for path in (project / "notebooks").glob("*.ipynb"):
        path.unlink()
    names = [f"page{number}" for number in range(8)]
    for name in names:
        write(project, name, tiny(f"print('{name}')"))
    before = leftovers()
    assert cli.main(["run", "--jobs", "8", "--profile", "smoke"]) == 0, capsys.readouterr().err
    assert "8 of 8 notebooks finished" in capsys.readouterr().err
    for name in names:
        run = json.loads((project / "_runs" / f"{name}.ipynb").read_text())
        assert run["cells"][-1]["outputs"][0]["text"] == [f"{name}\n"]
        assert run["metadata"]["papermill"]["parameters"] == {"profile": "smoke"}
        assert run["metadata"]["papermill"]["end_time"]
    assert leftovers() == before


def test_a_users_start_up_files_settings_and_kernels_do_not_reach_a_run(project, monkeypatch):
    home = project / "home"
    files = {
        ".ipython/profile_default/startup/a.py": "FROM_PROFILE = 1",
        ".ipython/profile_default/ipython_config.py": "c = get_config()\nc.Kernel.nonsense = 1",
        ".config/matplotlib/matplotlibrc": "lines.linewidth: 9",
        "start.py": "FROM_STARTUP = 1",
        "matplotlibrc": "lines.linewidth: 9",
        ".local/share/jupyter/kernels/python3/kernel.json": json.dumps(
            {"argv": ["/nonexistent"], "display_name": "x", "language": "python"}
        ),
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("JUPYTER_DATA_DIR", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(home / ".ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(home / "start.py"))
    monkeypatch.setenv("MATPLOTLIBRC", str(home / "matplotlibrc"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    look = (
        "import json, sys, matplotlib\n"
        "found = [name for name in globals() if name.startswith('FROM_')]\n"
        "facts = [sys.executable, found, matplotlib.rcParams['lines.linewidth']]\n"
        "facts.append(get_ipython().kernel.parent.transport)\n"
        "print(json.dumps(facts))"
    )
    write(project, "gradient", tiny(look))
    assert cli.main(["run", "gradient"]) == 0
    run = json.loads((project / "_runs" / "gradient.ipynb").read_text())
    shown = json.loads("".join(run["cells"][-1]["outputs"][0]["text"]))
    assert shown == [sys.executable, [], 1.5, "ipc"]


def test_where_a_socket_has_no_place_kernels_use_ports(monkeypatch):
    monkeypatch.setattr(execute.Kernel, "started", [])
    monkeypatch.setattr(execute.Kernel, "folder", Path("/short"), raising=False)
    assert execute.Kernel().transport == "ipc"
    monkeypatch.setattr(execute.Kernel, "folder", Path("/tmp") / ("long" * 30), raising=False)
    assert execute.Kernel().transport == "tcp"
    monkeypatch.setattr(execute.Kernel, "folder", Path("/short"), raising=False)
    monkeypatch.delattr(execute.socket, "AF_UNIX")
    assert execute.Kernel().transport == "tcp"


def test_a_run_that_cannot_be_kept_is_a_failed_one(project, capsys, monkeypatch):
    write(project, "gradient", tiny("print(1)"))

    def full(path, text):
        raise records.RecordError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(records, "write_text", full)
    assert cli.main(["run", "gradient"]) == 1
    assert "could not be kept: " in capsys.readouterr().err


def test_a_build_of_the_site_is_as_shielded_and_prints_anywhere(project, monkeypatch):
    monkeypatch.setenv("PYTHONSTARTUP", "start.py")
    monkeypatch.setenv("MATPLOTLIBRC", "mine")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    seen = {}

    def build(command, cwd, env):
        seen.update(
            env, files=os.listdir(env["IPYTHONDIR"]), rc=Path(env["MATPLOTLIBRC"]).read_text()
        )
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(cli.subprocess, "run", build)
    assert cli.main(["book"]) == 0
    assert "PYTHONSTARTUP" not in seen and seen["files"] == [] and seen["rc"] == ""
    assert seen["JUPYTER_PREFER_ENV_PATH"] == "1"
    assert seen["PYTHONIOENCODING"] == "ascii:backslashreplace"
    assert not Path(seen["IPYTHONDIR"]).exists()


def test_where_a_run_is_is_shown_and_not_kept(project, monkeypatch):
    work = (
        "import sys, time\n"
        "from erasus_nb.progress import working\n"
        "with working('scrub on digits', total=2, unit='seed') as step:\n"
        "    step('seed 0')\n"
        "    time.sleep(1.6)\n"
        "print('a warning', file=sys.stderr)"
    )
    write(project, "gradient", tiny(work, "print('12/400 [', file=__import__('sys').stderr)"))
    said = []
    describe = runner.Runner._describe
    monkeypatch.setattr(
        runner.Runner,
        "_describe",
        lambda self, **given: (said.append(self.jobs[0].said), describe(self, **given)),
    )
    assert cli.main(["run", "gradient"]) == 0
    assert any("scrub on digits: seed 1 of 2, 00:01" in line for line in said)
    kept = (project / "_runs" / "gradient.ipynb").read_text()
    assert "a warning" in kept and progress.MARK not in kept


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_ends_its_kernels(project, number):
    pid = "import os, time\nopen('pid', 'w').write(str(os.getpid()))"
    write(project, "gradient", tiny(f"{pid}\ntime.sleep(600)"))
    start = (
        "import signal, sys; from pathlib import Path\n"
        "from erasus_nb import __main__ as cli, cells, runner\n"
        # Where the tests run in the background, the shell has SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli.ROOT = runner.ROOT = cells.ROOT = Path.cwd()\n"
        "cells.NOTEBOOKS = Path('notebooks')\n"
        "sys.exit(cli.main(['run', 'gradient']))"
    )
    before = leftovers()
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", start], cwd=project, env=environment, stderr=subprocess.DEVNULL
    )
    until(lambda: (project / "pid").is_file() and (project / "pid").read_text())
    kernel = int((project / "pid").read_text())
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else 143)
    until(lambda: not alive(kernel))
    assert leftovers() == before


def until(happened):
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def alive(pid):
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("command, where", [("run", "_runs"), ("book", "_build")])
def test_a_project_that_cannot_be_written_is_one_sentence(project, capsys, command, where):
    (project / where).write_text("a file where a folder should be")
    assert cli.main([command]) == 2
    error = capsys.readouterr().err
    assert f"{where}: cannot be written" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "asked, said", [("", "apt-get install chromium"), ("/no/program", "'/no/program', which is no")]
)
def test_a_pdf_without_chromium_is_refused_in_one_sentence_before_any_work(
    monkeypatch, capsys, asked, said
):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("ERASUS_CHROMIUM", asked)
    monkeypatch.setattr(cli, "_jupyter_book", lambda *_: pytest.fail("work was done"))
    assert cli.main(["pdf"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_cells_that_cannot_be_exported_are_one_sentence(project, capsys):
    (project / "_build").write_text("a file where a folder should be")
    assert cli.main(["export"]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and len(error.splitlines()) == 1


# ------------------------------------------------------------------ boards


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_cannot_show_a_character_prints(project, rows, monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert cli.main(["board", "--rows", str(rows)]) == 0
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert "## digits" in text and "\\u2014" in text
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding=encoding))
    assert cli.main(["board", "--rows", "数据"]) == 2
    sys.stderr.flush()
    assert b"\\u6570\\u636e has no rows" in raw.getvalue()


@pytest.fixture
def rows(project):
    """Two boards of what two pages define."""
    for name in DEFINED:
        write(project, name, publishable(name))
    return fabricate.write(
        project / "rows", fabricate.documents(seeds=3), fabricate.documents("digits", seeds=3)
    )


def test_a_board_is_printed_from_a_folder_of_rows(rows, capsys):
    assert cli.main(["board", "--rows", str(rows), "--workload", "digits"]) == 0
    shown = capsys.readouterr().out
    assert "## digits" in shown and "synthetic" not in shown and "scrub" in shown
    assert cli.main(["board", "--rows", str(rows), "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("workload,") for line in lines) == 1
    assert {line.split(",")[0] for line in lines[1:]} == {"synthetic", "digits"}
    assert cli.main(["board", "--rows", str(rows), "--format", "json"]) == 0
    assert [b["workload"] for b in json.loads(capsys.readouterr().out)] == ["digits", "synthetic"]


def test_boards_that_cannot_be_printed_are_refused_in_one_sentence(project, rows, capsys):
    for arguments, said in (
        ([], "there are no rows yet"),
        (["--rows", "nowhere"], "nowhere has no rows"),
        (["--rows", str(rows), "--workload", "moons"], "no workload 'moons'; there are digits"),
    ):
        assert cli.main(["board", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1
    (rows / "digits" / "gradient.json").write_text("{")
    assert cli.main(["board", "--rows", str(rows)]) == 2
    assert "gradient.json: is not complete JSON" in capsys.readouterr().err


def test_rows_of_other_code_are_left_aside_and_counted(rows, capsys):
    fabricate.outdated(rows, "scrub", "sisa")
    assert cli.main(["board", "--rows", str(rows)]) == 0
    shown = capsys.readouterr().out
    said = "6 were made with other code, settings or sizes than those that are here (scrub, sisa)"
    assert shown.count(said) == 2 and "| scrub" not in shown and "| sisa" not in shown
    for form in ("csv", "json"):
        assert cli.main(["board", "--rows", str(rows), "--format", form]) == 0
        assert said in capsys.readouterr().out


def test_a_folder_where_nothing_is_of_this_code_is_refused_in_one_sentence(rows, capsys):
    fabricate.outdated(rows)
    for form in ("md", "csv", "json"):
        assert cli.main(["board", "--rows", str(rows), "--format", form]) == 2
        shown = capsys.readouterr()
        assert "nothing is of the code here" in shown.err and "rows are left aside" in shown.err
        assert len(shown.err.splitlines()) == 1 and not shown.out


def test_a_workload_where_nothing_is_of_this_code_is_named(rows, capsys):
    for path in (rows / "digits").glob("*.json"):
        change(path, lambda d: [setattr(row, "code", "of another time") for row in d.rows])
    assert cli.main(["board", "--rows", str(rows)]) == 0
    shown = capsys.readouterr()
    assert "## synthetic" in shown.out and "digits" not in shown.out
    assert "digits has no board: " in shown.err and "rows are left aside" in shown.err
    assert cli.main(["board", "--rows", str(rows), "--workload", "digits"]) == 2
    error = capsys.readouterr().err
    assert "no workload 'digits'; there are synthetic. " in error and "left aside" in error
    assert cli.main(["board", "--rows", str(rows), "--workload", "synthetic"]) == 0
    assert not capsys.readouterr().err


def test_documents_of_an_earlier_schema_are_refused_by_name(rows, capsys):
    path = rows / "digits" / "gradient.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    assert cli.main(["board", "--rows", str(rows)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: has schema version 1; this book reads 2" in error
    assert len(error.splitlines()) == 1


# ------------------------------------------------------------------ publishing


#: What the two pages of a publishable project define: the categories of their rows.
DEFINED = {
    page: {n: v for n, v in fabricate.STRATEGIES.items() if v[0].lower() == page}
    for page in ("gradient", "data")
}


def publishable(name, *more):
    return notebook(code(fabricate.defining(DEFINED[name]), "strategy"), *more)


@pytest.fixture
def clean_run(project):
    """Committed code and a finished laptop run of it."""

    def git(*arguments):
        done = subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    (project / ".gitignore").write_text("results/\n_runs/\n")
    for name in DEFINED:
        write(project, name, publishable(name))
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "code")
    made = fabricate.documents(seeds=3, strategies=DEFINED["gradient"] | DEFINED["data"])
    folder = fabricate.write(project / "results" / "laptop", made)
    return project, folder, git


def change(path, edit):
    document = records.read(path)
    edit(document)
    records.write(path, document)


def published(project):
    folder = project / "results" / "published"
    return sorted(p.relative_to(folder).as_posix() for p in folder.glob("*/*.json"))


def test_a_clean_run_is_published_and_replaces_the_earlier_one(clean_run, capsys):
    project, folder, git = clean_run
    old = project / "results" / "published" / "moons" / "gradient.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    assert cli.main(["publish"]) == 0, capsys.readouterr().err
    assert published(project) == [f"synthetic/{c}.json" for c in ("data", "gradient", "reference")]
    assert records.load(project / "results" / "published") == records.load(folder)


def test_a_later_commit_that_leaves_the_code_alone_does_not_matter(clean_run):
    project, _, git = clean_run
    (project / "README.md").write_text("new words")
    git("add", ".")
    git("commit", "-qm", "words")
    assert cli.main(["publish"]) == 0


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda d: setattr(d.rows[0].made, "dirty", True), "has rows of uncommitted code"),
        (lambda d: setattr(d, "profile", "smoke"), "gradient.json (it is of profile smoke)"),
        (lambda d: d.rows.pop(), "it lacks scrub at seed 2 on synthetic"),
        (lambda d: setattr(d.rows[-1], "code", "--help"), "it lacks scrub at seed 2 on synthetic"),
        (lambda d: setattr(d.rows[-1], "code", ""), "it lacks scrub at seed 2 on synthetic"),
        (lambda d: setattr(d.rows[-1], "made", None), "it lacks scrub at seed 2 on synthetic"),
        (lambda d: setattr(d.rows[-1], "edited", True), "it lacks scrub at seed 2 on synthetic"),
    ],
)
def test_a_run_that_is_not_clean_is_refused(clean_run, capsys, spoil, said):
    project, folder, _ = clean_run
    change(folder / "synthetic" / "gradient.json", spoil)
    assert cli.main(["publish"]) == 2
    *before, error = capsys.readouterr().err.splitlines()
    assert said in error and all("left aside" in line for line in before)
    assert not published(project)


def test_smoke_rows_in_a_laptop_folder_are_refused(clean_run, capsys):
    project, folder, _ = clean_run
    for path in folder.glob("*/*.json"):
        change(path, lambda document: setattr(document, "profile", "smoke"))
    assert cli.main(["publish"]) == 2
    assert "is of profile smoke" in capsys.readouterr().err
    assert not published(project)


def test_a_run_whose_workload_misses_a_gate_is_refused(clean_run, capsys):
    project, folder, _ = clean_run

    def forgetful(document):
        for row in document.rows:
            if row.kind == "original":
                row.metrics["C1"].value = 0.2

    change(folder / "synthetic" / "reference.json", forgetful)
    assert cli.main(["publish"]) == 2
    assert "synthetic misses the gate 'C1 original >= 0.9'" in capsys.readouterr().err
    assert not published(project)


@pytest.mark.parametrize("category", ["data", "reference"])
def test_an_unfinished_run_is_refused(clean_run, capsys, category):
    project, folder, _ = clean_run
    (folder / "synthetic" / f"{category}.json").unlink()
    assert cli.main(["publish"]) == 2
    assert f"it lacks {'rows of data' if category == 'data' else 'reference rows'}" in (
        capsys.readouterr().err
    )
    assert not published(project)


def retold(name, old, new):
    """The page of a publishable project with another piece of code."""
    source = fabricate.defining(DEFINED[name])
    assert old in source
    return notebook(code(source.replace(old, new), "strategy"))


def test_code_that_changed_after_the_run_is_refused(clean_run, capsys):
    project, _, git = clean_run
    write(project, "data", publishable("data", code("x = 1")))
    assert cli.main(["publish"]) == 2
    assert "uncommitted changes" in capsys.readouterr().err
    git("commit", "-qam", "a cell that no row depends on")
    assert cli.main(["publish"]) == 0
    before = kept(project)
    write(project, "data", retold("data", "return model", "return model.eval()"))
    git("commit", "-qam", "other strategies")
    capsys.readouterr()
    assert cli.main(["publish"]) == 2
    error = capsys.readouterr().err
    assert "12 rows are left aside: 12 were made with other code, settings or sizes" in error
    assert "unfinished: it lacks amnesiac at seeds 0, 1, 2 on synthetic" in error
    assert kept(project) == before


def test_rows_of_a_strategy_that_is_gone_are_not_published(clean_run, capsys):
    project, folder, git = clean_run
    gone = next(iter(DEFINED["gradient"]))
    left = [name for name in DEFINED["gradient"] if name != gone]
    write(project, "gradient", notebook(code(fabricate.defining(left), "strategy")))
    git("commit", "-qam", "one less")
    assert cli.main(["publish"]) == 0
    assert (
        f"3 are of strategies that their page does not define ({gone})" in capsys.readouterr().err
    )
    found = records.load(project / "results" / "published")["synthetic"]
    names = {row.strategy for document in found for row in document.rows}
    assert gone not in names and set(left) <= names


def kept(project):
    folder = project / "results" / "published"
    return {path: path.read_bytes() for path in sorted(folder.glob("*/*.json"))}


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_publishing_that_is_stopped_leaves_the_old_rows(clean_run, capsys, monkeypatch, at):
    """Stopped at one of the three files, or (3) when the folder is exchanged."""
    project, folder, _ = clean_run
    assert cli.main(["publish"]) == 0
    before, left = kept(project), iter(range(at))
    change(folder / "synthetic" / "data.json", lambda d: setattr(d.rows[0], "info", {"new": 1}))
    write_one, rename = records.write, Path.rename

    def fail(path, document):
        if next(left, None) is None:
            raise records.RecordError(f"{path}: cannot be written (No space left on device)")
        write_one(path, document)

    def stop(path, target):
        if path.name == "fresh":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", fail)
        patch.setattr(Path, "rename", stop)
        capsys.readouterr()
        assert cli.main(["publish"]) == 2
    shown = capsys.readouterr()
    assert "cannot be written" in shown.err and not shown.out
    assert kept(project) == before and len(before) == 3
    assert [p.name for p in sorted((project / "results").iterdir())] == ["laptop", "published"]
    assert cli.main(["publish"]) == 0
    assert kept(project) != before


@pytest.mark.parametrize("profile", ["smoke", "published", "../laptop"])
def test_only_board_profiles_are_ever_published(clean_run, capsys, profile):
    project, _, _ = clean_run
    assert cli.main(["publish", "--profile", profile]) == 2
    assert "never published; only laptop or full" in capsys.readouterr().err


def test_a_damaged_document_stops_publishing_by_name(clean_run, capsys):
    project, folder, _ = clean_run
    (folder / "synthetic" / "data.json").write_text("{")
    assert cli.main(["publish"]) == 2
    assert "data.json: is not complete JSON" in capsys.readouterr().err
    assert not published(project)


def test_export_writes_every_page(project, capsys):
    assert cli.main(["export"]) == 0
    shown = capsys.readouterr().out.split()
    assert shown == [f"_build/cells/{name}.py" for name in ("data", "gradient", "leaderboard")]
    assert "def ant" in (project / shown[0]).read_text()
