"""The guides, followed to the letter in a copy of the project: what they say works."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_site import code

from erasus_nb import ROOT, cells, records
from erasus_nb.strategy import READABLE, strategy
from erasus_nb.workloads.base import Workload

#: The project, but for its rows and whatever else may lie beside them.
PARTS = (
    "erasus_nb",
    "notebooks",
    "tests",
    "docs",
    "README.md",
    "intro.md",
    "_toc.yml",
    "_config.yml",
    "pyproject.toml",
    "references.bib",
)
IGNORED = shutil.ignore_patterns(".*", "__pycache__")


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def placed(text: str) -> dict[str, str]:
    """File -> the code block under the heading that names it."""
    found = {}
    for section in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        heading, _, rest = section.partition("\n")
        for path in re.findall(r"`([\w/]+\.py)`", heading):
            (found[path],) = blocks(rest, "python")
    return found


def copied(folder: Path) -> Path:
    """A copy of the project."""
    project = folder / "project"
    project.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, project / part, ignore=IGNORED)
        else:
            shutil.copy(ROOT / part, project / part)
    return project


def files(project: Path) -> dict[str, bytes]:
    """Every file of a project by its path, but for those that its .gitignore names."""
    found = {}
    for path in project.rglob("*"):
        place = path.relative_to(project)
        made = place.parts[0] in ("_build", "_runs", "results") or "__pycache__" in place.parts
        if path.is_file() and not made and not any(part.startswith(".") for part in place.parts):
            found[place.as_posix()] = path.read_bytes()
    return found


def follow(project: Path, command: str) -> str:
    """Run a command of a page in a project; what it printed."""
    program, *arguments = command.split()
    assert program == "python"
    environment = {k: v for k, v in os.environ.items() if k != "ERASUS_ROWS"}
    environment |= {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def rows(project: Path, workload: str, category: str) -> dict[str, list[records.Row]]:
    """Strategy -> its rows of a smoke run."""
    document = records.read(project / "results" / "smoke" / workload / f"{category}.json")
    found = {}
    for row in document.rows:
        found.setdefault(row.strategy, []).append(row)
    return found


# ------------------------------------------------------------------ add a workload


def insert_sizes(text: str, lines: str) -> str:
    """profiles.py with a line more at the end of the profile that each line names."""
    for line in lines.splitlines():
        profile = line.rpartition("# ")[2]
        start = text.index(f'    "{profile}": {{\n', text.index("PROFILES: "))
        end = text.index("\n    },\n", start) + 1
        text = f"{text[:end]}{line}\n{text[end:]}"
    return text


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    """A project to which the guide's workload was added: (project, its files before)."""
    project = copied(tmp_path_factory.mktemp("workload"))
    before = files(project)
    for path, text in placed(page("add-a-workload")).items():
        file = project / path
        whole = insert_sizes(file.read_text("utf-8"), text) if file.exists() else text
        file.write_text(whole, "utf-8")
    return project, before


def test_a_workload_is_added_as_the_guide_says_and_gets_its_board(workload):
    project, before = workload
    (commands,) = blocks(page("add-a-workload"), "bash")
    own, run, board = commands.splitlines()
    follow(project, own)
    follow(project, run)
    shown = follow(project, board)
    assert "## blobs" in shown and "All 8 gates of the workload are met." in shown
    for name in ("retrained", "original", "fine_tune", "scrub"):
        assert re.search(rf"^\| {name} \| .* \| [\d.]+ \(", shown, flags=re.MULTILINE), name
    found = rows(project, "blobs", "gradient")
    assert [row.status for row in found["scrub"]] == ["ok"] * 3 and list(found) == ["scrub"]
    after = files(project)
    assert before.keys() <= after.keys()
    assert sorted(path for path in after if after[path] != before.get(path)) == [
        "erasus_nb/profiles.py",
        "erasus_nb/workloads/blobs.py",
        "tests/test_blobs.py",
    ]


def test_nothing_else_names_the_guides_workload(workload):
    _, before = workload
    prose = ("docs/", "tests/")
    assert not [n for n, text in before.items() if b"blobs" in text and not n.startswith(prose)]


# ------------------------------------------------------------------ add a strategy


def test_a_strategy_is_added_as_the_guide_says_and_gets_its_rows(tmp_path, monkeypatch):
    project = copied(tmp_path)
    function, run, say, test = blocks(page("add-a-strategy"), "python")
    path = project / "notebooks" / "gradient.ipynb"
    notebook = json.loads(path.read_text("utf-8"))
    place = next(
        number
        for number, each in enumerate(notebook["cells"])
        if cells.text_of(each).startswith("## What the chart shows")
    )
    new = [code(function, "strategy"), code(run), code(say, "remove-input")]
    for number, each in enumerate(new):
        each["id"] = f"new-{number}"
    notebook["cells"][place:place] = new
    path.write_text(json.dumps(notebook), "utf-8")
    (project / "tests" / "test_fresh_head.py").write_text(test, "utf-8")

    (commands,) = blocks(page("add-a-strategy"), "bash")
    running, testing = commands.splitlines()
    follow(project, running)
    follow(project, testing)
    found = rows(project, "synthetic", "gradient")
    assert list(found) == ["fresh_head"]
    for row in found["fresh_head"]:
        assert row.status == "ok" and not row.edited and not row.analogue
        assert row.cost.examples_read["forget"] == 0 < row.cost.examples_read["retain"]
    ran = json.loads((project / "_runs" / "gradient.ipynb").read_text("utf-8"))
    said = [each["outputs"] for each in ran["cells"] if cells.text_of(each) == say]
    assert "reaches Retrain-Match" in json.dumps(said)
    monkeypatch.setattr(cells, "NOTEBOOKS", project / "notebooks")
    assert cells.check("gradient") == []


def test_the_strategy_guide_names_everything_that_a_mark_takes():
    text = page("add-a-strategy")
    for name in inspect.signature(strategy).parameters:
        assert f"| `{name}` |" in text, name
    for name in READABLE:
        assert f"`{name}`" in text, name


def test_the_workload_guide_names_everything_that_is_asked_of_one():
    text = page("add-a-workload").partition("## Something that is no classifier")[2]
    asked = {name for name in vars(Workload) if not name.startswith("_")}
    asked |= {name for name in Workload.__annotations__}
    given = {"facts", "pictures", "checked_folds", "without", "moved", "made_by"}
    given |= {"fixed", "published", "remember"}  # of models that others publish; the bench's
    for name in asked - given:
        assert re.search(rf"`{name}(\(.*\))?`", text), name
