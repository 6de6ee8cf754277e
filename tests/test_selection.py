"""Which rows a board takes: those of the code, settings and sizes that are here, and no others."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import fabricate
import pytest
from test_site import code, md, notebook

from erasus_nb import profiles, records, score, selection

#: The strategies of the two pages here, as `fabricate` makes rows of them.
GRADIENT = ("scrub", "negative_gradient", "gradient_ascent")
MADE = {name: fabricate.STRATEGIES[name] for name in (*GRADIENT, "sisa")}
SETUP = (
    "from erasus_nb.strategy import strategy\nfrom erasus_nb.training import clone\n\nRATE = 0.5"
)
HELPER = '''
def half(x):
    """Half of it."""
    return RATE * x
'''.strip()
#: What a strategy does. `negative_gradient` uses the helper through another one.
WORK = {
    "scrub": "return half(clone(model))",
    "negative_gradient": "return quarter(model)",
    "gradient_ascent": "return clone(model)",
    "sisa": "return half(model)",
}
QUARTER = "def quarter(x):\n    return half(half(x))"


def definition(name):
    mark = f'@strategy(category="{MADE[name][0]}", cite="x", reads=("forget",), departures=("Small.",))'
    head = f"def {name}(model, forget, retain, task, *, lr=0.1, seed=0):"
    return f'{mark}\n{head}\n    """What it does."""\n    {WORK[name]}'


def page(*names):
    helpers = [code(HELPER, "strategy"), code(QUARTER, "strategy")]
    cells = [code(definition(name), "strategy") for name in names]
    return notebook(
        md("# Page\n\nQuestion?"), code(SETUP, "setup"), *helpers, *cells, code("x = 1")
    )


TUNED = {
    workload: {
        name: {"settings": {"lr": 0.2}, "chosen_by": "tuning", "trials": []}
        for name in ("scrub", "gradient_ascent")
    }
    for workload in ("synthetic", "digits")
}


class Project:
    """Two pages, tuned settings, and rows of them: two workloads in two profiles."""

    def __init__(self, root):
        self.root, self.notebooks = root, root / "notebooks"

    def fill(self):
        (self.notebooks / "tuned").mkdir(parents=True)
        self.write("gradient", page(*GRADIENT))
        self.write("data", page("sisa"))
        self.tuned(TUNED)
        for profile in ("laptop", "full"):
            groups = [self.made(w, profile) for w in ("synthetic", "digits")]
            fabricate.write(self.folder(profile), *groups)

    def made(self, workload, profile):
        return fabricate.documents(workload, profile, seeds=2, strategies=MADE)

    def folder(self, profile="laptop"):
        return self.root / "results" / profile

    def write(self, name, nb):
        (self.notebooks / f"{name}.ipynb").write_text(json.dumps(nb))

    def tuned(self, found):
        (self.notebooks / "tuned" / "gradient.json").write_text(json.dumps(found))

    def edit(self, name, old, new):
        """Replace a piece of a page's text, as an editor does that saves."""
        path = self.notebooks / f"{name}.ipynb"
        nb, found = json.loads(path.read_text()), 0
        for cell in nb["cells"]:
            found += cell["source"].count(old)
            cell["source"] = cell["source"].replace(old, new)
        assert found
        path.write_text(json.dumps(nb))

    def change(self, document, edit):
        """Edit the rows of one document of the laptop's `synthetic`."""
        path = self.folder() / "synthetic" / f"{document}.json"
        found = records.read(path)
        edit(found)
        records.write(path, found)

    def aside(self):
        """(profile, workload) -> names of the rows that are left aside."""
        found = {}
        for profile in ("laptop", "full"):
            for workload, counts in selection.load(self.folder(profile), self.root).aside.items():
                found[profile, workload] = {name for _, name in counts}
        return found

    def reasons(self):
        """Why rows of the laptop's `synthetic` are left aside: reason -> how many."""
        counts = selection.load(self.folder(), self.root).aside.get("synthetic", {})
        found = Counter()
        for (why, _), n in counts.items():
            found[why] += n
        return dict(found)

    def shown(self):
        """Names on the board of the laptop's `synthetic`."""
        return {s.name for s in score.boards(self.folder(), self.root)["synthetic"].standings}


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """Made once: what a row depends on is the same wherever the project is."""
    root = tmp_path_factory.mktemp("pattern")
    Project(root).fill()
    return root


@pytest.fixture
def project(pattern, tmp_path):
    project = Project(shutil.copytree(pattern, tmp_path / "project"))
    assert project.aside() == {} and set(MADE) < project.shown()
    return project


EVERYWHERE = [(p, w) for p in ("laptop", "full") for w in ("synthetic", "digits")]
ALL = {"original", "retrained", *fabricate.CONTROLS, *MADE}


# ------------------------------------------------------------------ what an edit leaves aside


@pytest.mark.parametrize(
    "old, new",
    [
        ("Question?", "Another question?"),
        ('"""Half of it."""', '"""The half of it, told anew."""'),
        ('"""What it does."""\n', ""),
        ("    return clone(model)", "    # why it does\n    return clone(model)"),
        ("return half(half(x))", "return half(\n        half(x)\n    )"),
        ("x = 1", "x = 2"),
    ],
    ids=["prose", "docstring", "no docstring", "comment", "layout", "untagged cell"],
)
def test_what_changes_no_row_leaves_every_row_on_the_board(project, old, new):
    project.edit("gradient", old, new)
    assert project.aside() == {}


@pytest.mark.parametrize(
    "old, new, names",
    [
        ("return RATE * x", "return x * RATE", {"scrub", "negative_gradient"}),
        ("RATE = 0.5", "RATE = 0.25", {"scrub", "negative_gradient"}),
        ("return half(half(x))", "return half(x)", {"negative_gradient"}),
        ("    return clone(model)", "    return clone(model).eval()", {"gradient_ascent"}),
        ("lr=0.1", "lr=0.3", set(GRADIENT)),
        ("Small.", "Large.", set(GRADIENT)),
        ("import clone", "import generator as clone", {"scrub", "gradient_ascent"}),
    ],
    ids=["helper", "constant", "helper's user", "body", "default", "departure", "import"],
)
def test_an_edit_leaves_aside_exactly_the_rows_that_depend_on_it(project, old, new, names):
    project.edit("gradient", old, new)
    assert project.aside() == {where: names for where in EVERYWHERE}
    assert project.reasons() == {selection.OTHER: 2 * len(names)}
    assert project.shown() == ALL - names
    project.edit("gradient", new, old)
    assert project.aside() == {}


@pytest.mark.parametrize(
    "change", [{"settings": {"lr": 0.4}}, {"settings": {}}, {"chosen_by": "a friend"}]
)
def test_changed_tuning_leaves_aside_that_strategy_on_that_workload(project, change):
    entry = TUNED["digits"]["scrub"] | change
    project.tuned(TUNED | {"digits": TUNED["digits"] | {"scrub": entry}})
    assert project.aside() == {(p, "digits"): {"scrub"} for p in ("laptop", "full")}


def test_what_tuning_tried_besides_changes_no_row(project):
    entry = TUNED["digits"]["scrub"] | {"trials": [{"settings": {"lr": 9.0}, "rm": [1.0]}]}
    project.tuned(TUNED | {"digits": TUNED["digits"] | {"scrub": entry}})
    assert project.aside() == {}


def test_changed_sizes_leave_aside_the_rows_of_that_workload_in_that_profile(project, monkeypatch):
    table = profiles.PROFILES["full"]
    recipe = replace(table["digits"].recipe, lr=0.5)
    monkeypatch.setitem(table, "digits", replace(table["digits"], recipe=recipe))
    assert project.aside() == {("full", "digits"): ALL}


def test_more_seeds_than_before_leave_no_row_aside(project, monkeypatch):
    table = profiles.PROFILES["full"]
    monkeypatch.setitem(table, "digits", replace(table["digits"], seeds=99))
    assert project.aside() == {}


def test_a_strategy_that_its_page_no_longer_defines_leaves_its_rows_aside(project):
    project.write("gradient", page(*GRADIENT[1:]))
    assert project.aside() == {where: {"scrub"} for where in EVERYWHERE}
    assert project.reasons() == {selection.NOBODY: 2}


def test_a_strategy_that_moved_to_another_page_is_measured_again(project):
    project.write("gradient", page(*GRADIENT[1:]))
    project.write("data", page("sisa", "scrub"))
    assert project.reasons() == {selection.NOBODY: 2}


@pytest.mark.parametrize("text", ["{", "{}", '{"cells": 3}'])
def test_a_page_that_does_not_parse_has_no_rows(project, text):
    (project.notebooks / "data.ipynb").write_text(text)
    assert project.reasons() == {selection.NOBODY: 2} and "sisa" not in project.shown()


def test_a_run_is_unfinished_as_soon_as_a_page_is_edited(project):
    pages = ["data", "gradient"]
    assert selection.unfinished(project.folder(), pages) == []
    project.edit("gradient", "    return clone(model)", "    return clone(model).eval()")
    assert selection.unfinished(project.folder(), pages) == [
        f"gradient_ascent at seeds 0, 1 on {workload}" for workload in ("digits", "synthetic")
    ]


# ------------------------------------------------------------------ rows that say too little


def test_an_edited_row_is_on_no_board_also_when_the_edit_is_undone(project):
    project.edit("gradient", "return RATE * x", "return x")

    def ran(document):  # with the helper as it was in the kernel
        for row in document.rows:
            row.edited, row.code = row.strategy == "scrub", "live"

    project.change("gradient", ran)
    assert "scrub" not in project.shown()
    project.edit("gradient", "return x", "return RATE * x")
    assert "scrub" not in project.shown()
    # Also where the code that it claims is that of the file.
    fabricate.write(project.folder(), project.made("synthetic", "laptop"))
    project.change("gradient", lambda d: [setattr(r, "edited", True) for r in d.rows[:1]])
    assert project.reasons() == {selection.EDITED: 1}


@pytest.mark.parametrize(
    "forget",
    [
        lambda d: [setattr(row, "code", "") for row in d.rows],
        lambda d: [setattr(row, "made", None) for row in d.rows],
        lambda d: d.facts.pop("made_by"),
        lambda d: d.facts.update(made_by=["synthetic"]),
    ],
    ids=["no code", "no provenance", "no workload", "a strange workload"],
)
def test_rows_that_do_not_say_what_made_them_are_left_aside(project, forget):
    project.change("gradient", forget)
    assert project.reasons() == {selection.SILENT: 6}
    rows = selection.load(project.folder(), project.root)
    assert rows.left_aside() == (
        "6 rows are left aside: 6 do not say where and with which code they were made "
        "(gradient_ascent, negative_gradient, scrub)."
    )


@pytest.mark.parametrize(
    "facts",
    [{"made_by": "moons"}, {"made_by": ""}, {"workload": "moons"}, {"workload": ["synthetic"]}],
)
def test_rows_of_a_workload_that_is_not_here_are_left_aside(project, facts):
    project.change("gradient", lambda document: document.facts.update(facts))
    assert project.reasons() == {selection.NOWHERE: 6}


def test_rows_of_a_profile_that_is_not_here_are_left_aside(project):
    project.change("gradient", lambda document: setattr(document, "profile", "huge"))
    assert project.reasons() == {selection.NOWHERE: 6}


def moved(source, names):
    """What takes rows of one document into another: they are there twice."""

    def edit(project, document):
        path = project.folder() / "synthetic" / f"{source}.json"
        document.rows += [row for row in records.read(path).rows if row.strategy in names]

    return edit


def renamed(**change):
    def edit(project, document):
        document.rows[0] = document.rows[0].model_copy(update=change)

    return edit


@pytest.mark.parametrize(
    "document, edit, reason, count",
    [
        ("gradient", moved("reference", ("retrained",)), selection.MISPLACED, 2),
        ("gradient", moved("reference", ("original", "fine_tune")), selection.MISPLACED, 4),
        ("data", moved("gradient", ("scrub",)), selection.MISPLACED, 2),
        ("reference", moved("gradient", ("scrub",)), selection.MISPLACED, 2),
        ("gradient", renamed(kind="retrained"), selection.MISPLACED, 1),
        ("gradient", renamed(kind="control"), selection.MISPLACED, 1),
        ("gradient", renamed(category="Data"), selection.MISPLACED, 1),
        ("reference", renamed(kind="retrained"), selection.MISPLACED, 1),
        ("reference", renamed(strategy="better"), selection.MISPLACED, 1),
        ("reference", renamed(kind="control", strategy="better"), selection.NOBODY, 1),
        ("reference", renamed(kind="control"), selection.NOBODY, 1),
        ("data", renamed(strategy="scrub"), selection.NOBODY, 1),
        ("gradient", renamed(strategy="fine_tune"), selection.NOBODY, 1),
    ],
)
def test_a_row_whose_kind_does_not_fit_its_document_is_left_aside(
    project, document, edit, reason, count
):
    project.change(document, lambda found: edit(project, found))
    assert project.reasons() == {reason: count}
    board = score.boards(project.folder(), project.root)["synthetic"]
    assert f"{count} {reason} (" in board.left_aside


# ------------------------------------------------------------------ the sentence


def test_the_sentence_counts_by_reason_and_names_some():
    rows = selection.Rows()
    assert rows.left_aside() == ""
    rows.aside["digits"] = Counter({(selection.EDITED, "scrub"): 1})
    said = "1 row is left aside: 1 ran with a strategy that had been edited (scrub)."
    assert rows.left_aside() == rows.left_aside("digits") == said
    assert rows.left_aside("synthetic") == ""
    rows.aside["text"] = Counter({(selection.OTHER, name): 2 for name in "abcdef"})
    assert rows.left_aside() == (
        "13 rows are left aside: 1 ran with a strategy that had been edited (scrub); "
        "12 were made with other code, settings or sizes than those that are here "
        "(a, b, c, d and 2 more)."
    )


def test_a_folder_of_nothing_but_other_rows_is_refused_and_an_empty_one_is_not(project, tmp_path):
    for name in ("gradient", "data"):
        (project.notebooks / f"{name}.ipynb").unlink()
    for path in project.folder("full").glob("*/reference.json"):
        path.unlink()
    with pytest.raises(records.RecordError, match="nothing is of the code here. 16 rows are left"):
        selection.usable(project.folder("full"), project.root)
    assert selection.usable(tmp_path / "nowhere", project.root).documents == {}


def test_what_is_loaded_is_what_is_there(project):
    rows = selection.load(project.folder(), project.root)
    assert rows.documents == records.load(project.folder())
    assert list(rows.documents["digits"])[0].category == "reference"
