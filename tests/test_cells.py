"""The bridge from notebook cells to a module, and the rules of a page."""

import json
import pickle
import traceback
from pathlib import Path

import pytest
import yaml

from erasus_nb import cells, records


def code(source, *tags):
    return {
        "cell_type": "code",
        "id": "x",
        "metadata": {"tags": list(tags)},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Write a page from cells and return its name; nothing touches the project's tree."""
    monkeypatch.setattr(cells, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(cells, "EXPORTS", tmp_path / "exports")

    def write(*parts, name="page"):
        nb = {"cells": list(parts), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(nb))
        return name

    return write


SETUP = code("from math import sqrt\n", "setup")


def test_only_tagged_cells_are_exported_and_they_work_as_a_module(page):
    name = page(
        code("raise RuntimeError('an untagged cell ran')"),
        SETUP,
        code("def root(x):\n    return sqrt(x)", "strategy"),
    )
    assert cells.load(name).root(9) == 3
    assert "RuntimeError" not in cells.export(name).read_text()


def test_a_source_of_lines_is_the_same_as_a_source_of_text(page):
    name = page(code(["def one():\n", "    return 1"], "strategy"))
    assert cells.load(name).one() == 1


def test_a_traceback_names_the_exported_file_and_shows_the_line(page):
    name = page(code("def fail():\n    raise ValueError('no')", "strategy"))
    with pytest.raises(ValueError) as caught:
        cells.load(name).fail()
    shown = "".join(traceback.format_exception(caught.value))
    assert "page.py" in shown and "raise ValueError('no')" in shown


def test_an_unchanged_page_is_loaded_once_and_a_changed_one_again(page):
    name = page(code("def one():\n    return 1", "strategy"))
    first = cells.load(name)
    assert cells.load(name) is first
    page(code("def one():\n    return 2", "strategy"))  # same second, same length
    assert cells.load(name).one() == 2


def test_a_page_that_fails_to_load_leaves_no_half_made_module(page):
    name = page(code("import sqrt_of_nothing", "setup"), name="broken")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            cells.load(name)


def test_a_loaded_function_can_be_pickled(page):
    name = page(code("def one():\n    return 1", "strategy"), name="picklable")
    function = cells.load(name).one
    assert pickle.loads(pickle.dumps(function)) is function


def test_strategies_are_the_marked_functions_in_order_of_definition(page):
    mark = "from erasus_nb.strategy import strategy"
    each = "@strategy(category='Gradient', cite='x', reads=('forget',), on=('synthetic',))\n"
    name = page(
        code(mark, "setup"),
        code(each + "def zebra(model):\n    return model", "strategy"),
        code("def helper(x):\n    return x", "strategy"),
        code(each + "def ant(model):\n    return model", "strategy"),
    )
    assert list(cells.strategies(name)) == ["zebra", "ant"]


def test_an_unknown_page_is_refused_with_the_pages_there_are(page):
    page(SETUP, name="gradient")
    with pytest.raises(ValueError, match="'gradeint'; there are gradient"):
        cells.load("gradeint")


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project whose table of contents lists two of four notebooks."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("gradient", "data", "Untitled", "._data"):
        (folder / f"{name}.ipynb").write_text("{}")
    parts = [{"caption": "x", "chapters": [{"file": "notebooks/gradient"}, {"file": "docs/x"}]}]
    parts[0]["chapters"].append({"file": "notebooks/data.ipynb", "sections": []})
    parts[0]["chapters"].append({"file": "notebooks/not_written_yet"})
    toc = {"format": "jb-book", "root": "intro", "parts": parts}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    monkeypatch.setattr(cells, "NOTEBOOKS", folder)
    return folder


def test_pages_are_what_the_table_of_contents_lists(book):
    assert cells.names() == ["data", "gradient"]
    assert cells.strays_in(book) == ["Untitled"]


def test_without_a_table_of_contents_every_notebook_is_a_page(book):
    (book.parent / "_toc.yml").unlink()
    assert cells.names() == ["Untitled", "data", "gradient"]
    assert cells.strays_in(book) == []


def test_where_the_project_cannot_be_written_cells_are_loaded_from_elsewhere(page, monkeypatch):
    name = page(code("def one():\n    return 1", "strategy"))
    barred = cells.NOTEBOOKS / "a file where a folder should be"
    barred.write_text("")
    monkeypatch.setattr(cells, "EXPORTS", barred / "cells")
    module = cells.load(name)
    assert module.one() == 1 and cells.load(name) is module
    assert not Path(module.one.__code__.co_filename).is_relative_to(cells.NOTEBOOKS)
    with pytest.raises(records.RecordError, match="cannot be written"):
        cells.export(name)


def test_a_healthy_page_breaks_no_rule(page):
    name = page(
        code("seeds: int = 3", "parameters"),
        SETUP,
        code("def helper(values, *, k=2):\n    return [sqrt(v) * k for v in values]", "strategy"),
        code(
            "class Kept:\n    size = 1\n    def at(self, i):\n        return helper([i])[0]",
            "strategy",
        ),
    )
    assert cells.check(name) == []


@pytest.mark.parametrize(
    "bad, said",
    [
        (code("import math\nx = 1", "setup"), "line 2 is not one of imports"),
        (code("rate = 0.1", "strategy"), "line 1 is not one of functions or classes"),
        (code("print('hello')", "strategy"), "line 1 is not one of functions or classes"),
        (code("def f():\n    return seeds", "strategy"), "uses seeds from outside"),
        (code("def f(x=untagged):\n    return x", "strategy"), "uses untagged from outside"),
        (code("def f():\n    return [untagged for _ in 'ab']", "strategy"), "uses untagged"),
        (code("%matplotlib inline\nimport math", "setup"), "not plain Python"),
        (code("from math import *", "setup"), "imports math.*; name what is used"),
        (code("from erasus_nb import metrics", "setup"), "imports erasus_nb.metrics"),
        (
            code("from erasus_nb.measuring import Measuring", "setup"),
            "imports erasus_nb.measuring.Measuring",
        ),
        (
            code("def f():\n    from erasus_nb.score import boards\n    return boards", "strategy"),
            "imports erasus_nb.score.boards",
        ),
        (code("\n".join(f"x{i} = {i}" for i in range(41))), "41 lines; at most 40"),
    ],
)
def test_each_broken_rule_is_named_with_its_cell(page, bad, said):
    name = page(code("seeds = 3", "parameters"), code("untagged = 1"), bad)
    wrong = cells.check(name)
    assert len(wrong) == 1 and said in wrong[0] and "cell 3" in wrong[0]


@pytest.mark.parametrize("name", cells.names())
def test_the_pages_of_the_book_keep_the_rules(name):
    assert cells.check(name) == []
