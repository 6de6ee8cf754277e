"""The guides, followed to the letter in a copy of the project: what they say works."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from erasus_nb import ROOT, cells, records

#: What git ignores, and what no guide needs: rows that are published, and repositories.
LEFT_OUT = shutil.ignore_patterns(
    "*.egg-info", ".*", "__pycache__", "_build", "_runs", "benchmarks", "results", "venv"
)


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
    return Path(shutil.copytree(ROOT, folder / "project", ignore=LEFT_OUT))


def files(root: Path) -> dict[str, bytes]:
    """Every file of a project by its path, but for what git ignores."""
    found = {}
    for folder, inside, names in os.walk(root):
        ignored = LEFT_OUT(folder, [*inside, *names])
        inside[:] = [name for name in inside if name not in ignored]
        for name in set(names) - ignored:
            path = Path(folder, name)
            found[path.relative_to(root).as_posix()] = path.read_bytes()
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
    assert re.search(r"^4 passed", follow(project, own), flags=re.MULTILINE)
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
    project, before = workload
    named = [path for path, text in before.items() if b"blobs" in text]
    assert sorted(named) == ["docs/add-a-workload.md", "tests/test_docs.py"]
