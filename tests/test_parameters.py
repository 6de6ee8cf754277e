"""Parameters: what is declared, what is converted, what is refused and in which words."""

from __future__ import annotations

import json

import papermill
import pytest
import torch

from erasus_nb import ROOT, book, parameters, records, selection
from erasus_nb.benchmark import Bench
from erasus_nb.parameters import Declared, ParameterError, check_notebook, convert, declared

PAGES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
STRATEGY_PAGES = selection.categories(ROOT)


@pytest.mark.parametrize("page", PAGES)
def test_papermill_lists_every_parameter_with_its_type_and_meaning(page):
    path = ROOT / "notebooks" / f"{page}.ipynb"
    listed = papermill.inspect_notebook(str(path))
    ours = declared(path)
    assert list(listed) == list(ours)
    for name, about in listed.items():
        assert about["inferred_type_name"] == ours[name].type
        assert about["help"] and about["help"] == ours[name].help


@pytest.mark.parametrize("page", STRATEGY_PAGES)
def test_every_strategy_page_takes_the_same_parameters(page):
    cell = lambda name: parameters._cells(ROOT / "notebooks" / f"{name}.ipynb", "parameters")
    assert cell(page) == cell(STRATEGY_PAGES[0])


@pytest.mark.parametrize(
    "value, wanted",
    [
        (["digits"], ["digits"]),
        ('["digits"]', ["digits"]),
        ("digits", ["digits"]),
        ("synthetic, digits", ["synthetic", "digits"]),
        ("[]", []),
        ("", []),
    ],
)
def test_a_list_may_come_as_text(value, wanted):
    assert convert("workloads", value, Declared("list", [], "")) == wanted


@pytest.mark.parametrize(
    "kind, value, words",
    [
        ("list", 3, "must be a list of names"),
        ("list", "[1, 2]", "must be a list of names"),
        ("list", "[broken", "is not a list"),
        ("int", "two", "must be a whole number"),
        ("int", 2.5, "must be a whole number"),
        ("int", True, "must be a whole number"),
        ("bool", "yes", "must be True or False"),
        ("str", 5, "must be text"),
        ("float", "x", "must be a number"),
    ],
)
def test_a_wrong_type_is_refused_with_what_is_allowed(kind, value, words):
    with pytest.raises(ParameterError, match=words):
        convert("it", value, Declared(kind, None, ""))


def test_text_from_papermill_counts_as_a_truth_value():
    # papermill hands `-p resume false` over as the (truthy) string "false".
    assert convert("resume", "false", Declared("bool", True, "")) is False


def test_a_cell_that_is_no_plain_assignment_is_refused(tmp_path):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "x = 1"}
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ParameterError, match="no annotated assignment"):
        declared(path)
    path.write_text(json.dumps({"cells": []}))
    with pytest.raises(ParameterError, match="not one"):
        declared(path)


# ------------------------------------------------------------------ a page's first cell


def started(**given):
    return book.start("ensemble", {"__name__": "__main__", "In": [], "book": book, **given})


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(sed=1), "there is no parameter 'sed'; there are workloads, strategies"),
        (dict(workloads=["mnist"]), "no workload 'mnist'; there are synthetic, digits"),
        (dict(strategies="scrub"), "no strategy 'scrub'; there are ensemble"),
        (dict(profile="huge"), "no profile 'huge'; there are smoke, laptop, full"),
        (dict(device="tpu"), "no device 'tpu'; there are cpu, cuda"),
        (dict(seeds=0), "seeds must be at least 1; got 0"),
        (dict(seeds="many"), "seeds must be a whole number; got 'many'"),
    ],
)
def test_a_page_refuses_before_any_work(given, words, monkeypatch):
    monkeypatch.setattr(book, "ReadersBench", lambda *a, **k: pytest.fail("work had begun"))
    with pytest.raises(ParameterError, match=words):
        started(**given)


@pytest.mark.parametrize(
    "workload, request_, words",
    [
        ("synthetic", "all", "one of standard, most, random, least, got 'all'"),
        ("text", "most", "the standard request only, not most"),
    ],
)
def test_a_request_that_a_workload_does_not_take_is_refused_before_any_work(
    workload, request_, words, monkeypatch
):
    # Which requests there are, the workload says: it is built first, and nothing else is done.
    monkeypatch.setattr(Bench, "originals", lambda self: pytest.fail("work had begun"))
    monkeypatch.setattr(book, "display", lambda thing: pytest.fail("something was shown"))
    with pytest.raises(ParameterError, match=words):
        started(workloads=[workload], request=request_)


def test_cuda_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParameterError, match="no usable GPU; use cpu"):
        started(device="cuda")


def test_a_readers_own_variables_are_no_parameters_later():
    namespace = {"book": book, "profile": "smoke"}
    check_notebook("ensemble", namespace)
    namespace["my_own_number"] = 3
    assert check_notebook("ensemble", namespace)["profile"] == "smoke"


def test_names_of_start_up_files_are_no_parameters():
    cells = ["", 'profile: str = "laptop"', 'profile = "smoke"', "not ( Python", "import os"]
    namespace = {"profile": "smoke", "DATA_DIR": "/data", "N_JOBS": 2, "In": cells}
    assert check_notebook("ensemble", namespace)["profile"] == "smoke"


@pytest.mark.parametrize("cell", ["sed = 1", "sed: int = 1", "for sed in [1]:\n    pass"])
def test_a_misspelt_name_in_an_executed_cell_is_refused(cell):
    cells = ["", "seeds: int = None", cell, 'book.start("ensemble", globals())']
    with pytest.raises(ParameterError, match="there is no parameter 'sed'"):
        check_notebook("ensemble", {"seeds": None, "sed": 1, "DATA_DIR": "/data", "In": cells})


def test_the_message_is_all_that_jupyter_prints():
    assert ParameterError("say what is allowed")._render_traceback_() == [
        "ParameterError: say what is allowed"
    ]


# ------------------------------------------------------------------ through papermill


def test_plain_papermill_refuses_an_unknown_name_and_no_start_up_file(tmp_path, monkeypatch):
    (tmp_path / "start.py").write_text("DATA_DIR = '/data'")
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "start.py"))
    with pytest.raises(papermill.PapermillExecutionError, match="there is no parameter 'sed'"):
        papermill.execute_notebook(
            ROOT / "notebooks" / "ensemble.ipynb",
            tmp_path / "out.ipynb",
            {"sed": 1, "out": str(tmp_path)},
            progress_bar=False,
        )
    assert not list(tmp_path.glob("*/*")), "nothing was written"


def test_plain_papermill_writes_valid_rows(tmp_path):
    papermill.execute_notebook(
        ROOT / "notebooks" / "gradient.ipynb",
        tmp_path / "out.ipynb",
        {
            "profile": "smoke",
            "workloads": '["digits"]',
            "strategies": "scrub",
            "seeds": 2,
            "device": "cpu",
            "out": str(tmp_path),
        },
        progress_bar=False,
    )
    document = records.read(tmp_path / "smoke" / "digits" / "gradient.json")
    assert {(r.strategy, r.seed, r.status) for r in document.rows} == {
        ("scrub", 0, "ok"),
        ("scrub", 1, "ok"),
    }
    assert document.parameters["workloads"] == ["digits"]
    assert {r.strategy for r in records.read(tmp_path / "smoke/digits/reference.json").rows} >= {
        "original",
        "retrained",
        "partial_retrain",
    }
