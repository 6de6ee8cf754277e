"""The leaderboard page: made of rows alone, honest where rows are missing or not fit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import fabricate
import pytest

from erasus_nb import ROOT, parameters, score, selection

SOURCE = ROOT / "notebooks" / "leaderboard.ipynb"
NOTEBOOK = json.loads(SOURCE.read_text("utf-8"))

EVIL = "RuntimeError: <script>alert('x')</script> & <b>bold</b>"
ABSENT = {
    "fisher_forgetting": ("error", EVIL),
    "certified_removal": ("not_applicable", "no convex head"),
}


def tagged(tag: str) -> list[str]:
    return [
        "".join(cell["source"])
        for cell in NOTEBOOK["cells"]
        if tag in cell["metadata"].get("tags", ())
    ]


def papermill(source, target, *given: str, root=ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("ERASUS_ROWS", None)
    command = [sys.executable, "-m", "papermill", str(source), str(target), *given]
    return subprocess.run(
        [*command, "--no-progress-bar"],
        cwd=root,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )


def shown(path) -> tuple[list[dict], str]:
    """The code cells of an executed notebook, and everything that they display."""
    cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    parts = []
    for cell in cells:
        for output in cell["outputs"]:
            data = output.get("data", {})
            found = data.get("text/html") or data.get("text/markdown") or output.get("text", "")
            parts.append("".join(found))
    return cells, "\n".join(parts)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two good workloads, with absent rows, and of one that misses its gates."""
    tmp = tmp_path_factory.mktemp("leaderboard")
    folder = fabricate.write(
        tmp / "rows",
        fabricate.documents("synthetic", absent=ABSENT, analogues=("token_masking",)),
        fabricate.documents("digits"),
        fabricate.documents("flawed", retrained=0.6),
    )
    # A last cell that is not the page's: it says what the page has imported.
    notebook = json.loads(SOURCE.read_text("utf-8"))
    extra = "import sys; print('torch is imported:', 'torch' in sys.modules)"
    last = {"cell_type": "code", "id": "probe", "metadata": {}, "source": extra}
    notebook["cells"].append({**last, "outputs": [], "execution_count": None})
    source = tmp / "leaderboard.ipynb"
    source.write_text(json.dumps(notebook), "utf-8")
    done = papermill(
        source, tmp / "out.ipynb", "-p", "rows", str(folder), "-p", "export", str(tmp / "boards")
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unknown parameter" not in done.stderr and "Unable to parse" not in done.stderr
    cells, text = shown(tmp / "out.ipynb")
    return cells, text, tmp / "boards", score.boards(folder)


# ------------------------------------------------------------------------ a full page


def test_the_verdict_and_its_numbers_come_from_the_rows(page):
    cells, _, _, boards = page
    glance = next(c for c in cells if "glance" in c["metadata"].get("tags", ()))
    box = "".join("".join(o["data"]["text/html"]) for o in glance["outputs"])
    for name in ("synthetic", "digits"):
        best = boards[name].leaders[0]
        assert f"<code>{best.name}</code>" in box
        assert f"{best.rm.mean:.1f} ({best.rm.low:.1f} to {best.rm.high:.1f})" in box
        assert f"{boards[name]['original'].rm.mean:.1f} (" in box
    for stamp in ("laptop", "5 on synthetic", "0123456789", "2026-01-31", "cpu, 1 thread"):
        assert stamp in box


def test_each_board_comes_with_its_charts_and_a_sentence_below(page):
    text = page[1]
    figures = re.findall(
        r'<figure class="erasus-chart" role="group" tabindex="0" aria-label="([^"]+)"', text
    )
    assert len(figures) == 2 * 5
    for alt in figures:
        after = text[text.index(f'aria-label="{alt}"') :]
        assert re.search(r"</figure>\s*<p>On <code>", after)
    assert text.count('<table class="dataframe table board">') == 2 + 1  # and over all
    assert text.count("points of Retrain-Match and their difference scatters") == 2


def test_a_workload_that_misses_its_gates_shows_them_instead_of_a_board(page):
    _, text, _, boards = page
    assert not boards["flawed"].gates_passed
    failed = [gate for gate in boards["flawed"].gates if not gate.passed]
    assert "<code>flawed</code> misses" in text
    assert all(gate.name.replace(">", "&gt;").replace("<", "&lt;") in text for gate in failed)
    for alt in re.findall(r'aria-label="([^"]+)"', text):
        assert "flawed" not in alt
    assert "<strong><code>flawed</code></strong>, profile" not in text


def test_text_from_rows_is_escaped_wherever_it_is_shown(page):
    _, text, _, _ = page
    assert text.count("alert('x')") + text.count("alert(&#x27;x&#x27;)") >= 3
    assert "<script>alert" not in text and "<b>bold" not in text


def test_failures_are_listed_with_their_reasons(page):
    _, text, _, _ = page
    part = text[text.index("seeds with a result") :]
    assert "RuntimeError: &lt;script&gt;" in part and "no convex head" in part
    assert "1 of these 2 do not apply to their workload; 1 did not finish" in part


def test_the_seed_board_is_printed_and_its_rule_is_shown_at_work(page):
    _, text, _, boards = page
    for name in ("synthetic", "digits"):
        assert score.seed_markdown(boards[name]) in text
        everything, _ = score.seed_table(
            boards[name], ("strategy", "control", "original", "retrained")
        )
        place = {row["Strategy"]: row["Rank"] for row in everything}
        row = r">random_init</td><td[^>]*>a fresh network[^<]*</td><td[^>]*>%d<"
        assert re.search(row % place["random_init"], text)
        assert f"(place {place['ascent_to_destruction']})" in text


def test_rival_scores_are_those_of_the_rows(page):
    _, text, _, boards = page
    part = text[text.index(">indiscernibility</th>") :]
    random_init = boards["synthetic"]["random_init"]
    leak = f"{random_init.other_scores['privleak'].mean:.1f}".removeprefix("-")
    assert leak in part[: part.index("</table>")]
    assert "passes indiscernibility alone" in text


def test_the_boards_are_exported_and_can_be_downloaded(page):
    _, text, target, boards = page
    for name, board in boards.items():
        assert (target / f"{name}.md").read_text("utf-8") == score.markdown(board)
        assert (target / f"{name}.csv").read_text("utf-8") == score.csv_text(board)
        assert json.loads((target / f"{name}.json").read_text("utf-8"))
        assert f'<a download href="{target.as_uri()}/{name}.csv">' in text
    assert str(target) in text


def test_the_page_never_loads_torch_or_runs_a_strategy(page):
    assert "torch is imported: False" in page[1]


# ------------------------------------------------------------------------ who is first


#: What is in the cells that make and show the box at the top of the page.
GLANCE = ("def say(", "def called(", "def verdict(", "Result at a glance")


def cell_with(text: str) -> str:
    (found,) = [
        "".join(cell["source"])
        for cell in NOTEBOOK["cells"]
        if cell["cell_type"] == "code" and text in "".join(cell["source"])
    ]
    return found


@pytest.mark.parametrize("case", fabricate.FIRST)
def test_no_sentence_of_the_page_calls_first_who_is_not_above_the_control(tmp_path, case):
    two = [fabricate.documents(name, **fabricate.FIRST[case]) for name in ("synthetic", "toy")]
    space = start(rows=str(fabricate.write(tmp_path, *two)), workload="synthetic")
    said = []
    space["display"] = lambda thing: said.append(str(thing.data))
    for text in GLANCE:
        exec(cell_with(text), space)
    begins, names = fabricate.SAID[case]
    wanted = begins.format(*(f"<code>{name}</code>" for name in names))
    box = said.pop()
    verdict = box[box.index("<p>") : box.index("<div style")]
    assert wanted in verdict and "<code>lora</code>" not in verdict
    assert all(f"<code>{name}</code> has a Retrain-Match of" in verdict for name in names)
    for text in ("def seed_places(", "score.sensitivity("):
        exec(cell_with(text), space)
    seed, rules = [text for text in said if wanted in text or "highest mean belongs" in text]
    for text in (seed, rules):
        # The seed's rule has a winner of its own, whoever that is.
        own = re.sub("its winner is <code>[a-z_]+</code>", "", text)
        assert "<code>lora</code>" not in own
    assert ("highest mean belongs to" in rules) == bool(names)
    assert all(f"<code>{name}</code> place " in seed for name in names)


def test_the_page_calls_nobody_first_over_all_who_is_not_above_each_control(tmp_path):
    groups = [
        fabricate.documents(name, **fabricate.FIRST["nobody"]) for name in ("synthetic", "digits")
    ]
    space = start(rows=str(fabricate.write(tmp_path, *groups)))
    said = []
    space["display"] = lambda thing: said.append(str(getattr(thing, "data", thing)))
    for text in ("def say(", "def called(", "front.heat_map("):
        exec(cell_with(text), space)
    assert any(
        "No strategy is significantly better than the cheap controls" in text for text in said
    )
    assert "With any one workload left out" in said[-1]


def test_the_page_says_which_rows_lack_seeds(tmp_path):
    rows = fabricate.documents(missing={"scrub": (1, 2)})
    space = start(rows=str(fabricate.write(tmp_path, rows)))
    said = []
    space["display"] = lambda thing: said.append(str(thing.data))
    for text in GLANCE:
        exec(cell_with(text), space)
    assert "they lack seeds: <code>scrub</code> (seeds 1, 2)." in said[-1]


# ------------------------------------------------------------------------ rows of other code


def test_rows_of_other_code_are_on_no_board_of_the_page_and_it_says_so(tmp_path):
    folder = fabricate.write(tmp_path, fabricate.documents(), fabricate.documents("digits"))
    space = start(rows=str(fabricate.outdated(folder, "scrub", "lora")))
    said = []
    space["display"] = lambda thing: said.append(str(thing.data))
    for text in GLANCE:
        exec(cell_with(text), space)
    assert "20 rows are left aside" in said[-1] and "(lora, scrub)" in said[-1]
    assert all("scrub" not in {s.name for s in b.standings} for b in space["boards"].values())


def test_where_no_row_is_of_this_code_the_page_says_so_without_numbers(tmp_path, monkeypatch):
    folder = fabricate.outdated(fabricate.write(tmp_path, fabricate.documents(seeds=2)))
    with pytest.raises(parameters.ParameterError, match="of the code that is here: .* left aside"):
        start(rows=str(folder))
    monkeypatch.setattr(selection, "choose_rows", lambda root: folder)
    space, said = start(), []
    space["display"] = lambda thing: said.append(str(thing.data))
    for text in GLANCE:
        exec(cell_with(text), space)
    assert "There are no rows of the code that is here." in said[-1]
    assert "made with other code, settings or sizes" in said[-1]


# ------------------------------------------------------------------------ a fresh tree


def test_without_any_rows_the_page_says_so_and_finishes(tmp_path):
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "erasus_nb", tmp_path / "erasus_nb", ignore=skip)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(SOURCE, tmp_path / "notebooks")
    shutil.copy(ROOT / "references.bib", tmp_path)
    done = papermill("notebooks/leaderboard.ipynb", "out.ipynb", root=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    cells, text = shown(tmp_path / "out.ipynb")
    assert "There are no rows yet." in text and "make book" in text
    assert all(cell["execution_count"] for cell in cells)
    assert "<figure" not in text and not (tmp_path / "_build").exists()


# ------------------------------------------------------------------------ refusals


def start(**given) -> dict:
    """Run the page up to its boards, with these parameters, as papermill injects them."""
    space: dict = {}
    (declared,) = tagged("parameters")
    exec(declared, space)
    space.update(given)
    reading = next(text for text in tagged("hide-input") if "check_notebook" in text)
    exec(reading, space)
    return space


def test_smoke_rows_are_refused(tmp_path):
    folder = fabricate.write(tmp_path / "smoke", fabricate.documents(profile="smoke", seeds=2))
    with pytest.raises(parameters.ParameterError, match="smoke rows.*laptop or full"):
        start(rows=str(folder))


def test_an_unknown_parameter_is_refused_with_those_there_are():
    with pytest.raises(parameters.ParameterError, match="'workloads'.*rows, workload, export"):
        start(workloads="synthetic")


def test_an_unknown_workload_is_refused_with_those_there_are(tmp_path):
    folder = fabricate.write(tmp_path, fabricate.documents(seeds=2))
    with pytest.raises(parameters.ParameterError, match="'text'; there are synthetic"):
        start(rows=str(folder), workload="text")


def test_a_folder_without_rows_is_refused(tmp_path):
    with pytest.raises(parameters.ParameterError, match="holds no results"):
        start(rows=str(tmp_path))


def test_one_workload_can_be_asked_for(tmp_path, monkeypatch):
    groups = [fabricate.documents(name, seeds=2, strategies={}) for name in ("digits", "synthetic")]
    folder = fabricate.write(tmp_path, *groups)
    monkeypatch.setattr(selection, "choose_rows", lambda root: folder)
    assert list(start(workload="digits")["boards"]) == ["digits"]
    assert list(start()["boards"]) == ["synthetic", "digits"]


# ------------------------------------------------------------------------ the source


def test_claims_are_checked_where_nobody_sees_the_check():
    guards = [text for text in tagged("remove-cell") if "assert " in text]
    assert guards and all("len(board.seeds) >= 5" in text for text in guards)


def test_a_claim_that_is_not_true_stops_the_page(tmp_path):
    space = start(rows=str(fabricate.write(tmp_path, fabricate.documents(strategies={}))))
    (guard,) = [text for text in tagged("remove-cell") if "assert " in text]
    exec(guard, space)
    board = space["printed"]["synthetic"]
    low = board["original"].rm
    lines = [replace(s, rm=low) if s.kind == "retrained" else s for s in board.standings]
    space["printed"] = {"synthetic": replace(board, standings=tuple(lines))}
    with pytest.raises(AssertionError, match="retraining is not close to 100"):
        exec(guard, space)
