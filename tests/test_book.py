"""What a page shows: numbers from rows, sentences that are checked, text that is escaped."""

from __future__ import annotations

import copy
import html
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import fabricate
import pytest

from erasus_nb import book, records, score, tables
from erasus_nb.strategy import NotApplicable, Unlearned, strategy

ON = dict(category="Test", cite="", on=("synthetic",))


@strategy(**ON, reads=(), departures=("It is only a test.",))
def ensemble(model, forget, retain, task, *, size=(1, 2), rate=0.1, seed=0):
    """Does nothing, under the name of a strategy that the page knows."""
    return Unlearned(copy.deepcopy(model), info={"share": 0.25, "mode": "copy"})


@strategy(**ON, reads=())
def cannot(model, forget, retain, task, *, seed=0):
    raise NotApplicable("no <b>second</b> modality")


@pytest.fixture
def shown(monkeypatch):
    said = []
    monkeypatch.setattr(book, "display", lambda thing: said.append(thing))
    return said


@pytest.fixture
def page(shown, tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ERASUS_CACHE", str(tmp_path_factory.getbasetemp() / "book-cache"))
    page = book.start("ensemble", {"profile": "smoke", "out": str(tmp_path)})
    shown.clear()
    return page


def text(shown) -> str:
    return "\n".join(str(thing.data) for thing in shown)


def test_a_run_shows_its_row_between_the_references(page, shown):
    page.run(ensemble)
    table = text(shown)
    order = [table.index(name) for name in ("original", "<strong>ensemble</strong>", "retrained")]
    assert order == sorted(order)


def test_a_page_does_not_print_that_there_are_no_widgets():
    code = (
        "import warnings; from tqdm import TqdmWarning; from erasus_nb import book; "
        "warnings.warn('IProgress not found. Please update', TqdmWarning); "
        "warnings.warn('something else', TqdmWarning)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "something else" in ran.stderr and "IProgress" not in ran.stderr


@strategy(category="Yours", cite="", reads=(), on=("digits",))
def elsewhere(model, forget, retain, task, *, seed=0):
    """An idea that is marked for another workload than the page runs on."""
    return Unlearned(copy.deepcopy(model))


def test_an_idea_of_your_own_runs_where_its_mark_says(page, shown):
    page.run(elsewhere, keep=False)
    assert text(shown) == (
        "`elsewhere` is not marked for `synthetic`: name it in `on` to run it there."
    )
    assert not page._rows["synthetic"]
    page.relearn(elsewhere)  # nothing to attack, and nothing breaks
    page.say(elsewhere, "Retrain-Match {rm}.")
    page.chart(elsewhere)


def test_a_sentence_takes_its_numbers_from_the_rows(page, shown):
    page.run(ensemble)
    shown.clear()
    page.say(ensemble, "{name}: {m:C1} of {o:C1}, {r:C4}; {info:share}; {info:mode}; {flags}")
    standing = page.board("synthetic")["ensemble"]
    recall, kept = (standing.metrics["C1"].mean, page.board("synthetic")["retrained"].metrics["C4"])
    assert text(shown) == (
        f"- `synthetic`: ensemble: {recall:.2f} of {recall:.2f}, {kept.mean:.2f}; 0.25; copy; "
        + ", ".join(standing.flags)
        + ". Settings: the defaults."
    )
    assert "no-op" in standing.flags


def test_a_sentence_ends_with_the_settings_of_the_row(page, shown, monkeypatch):
    chosen = {"size": (1, 2), "rate": 0.5}
    monkeypatch.setattr(
        page.benches["synthetic"], "full_settings", lambda function: (chosen, "tuned")
    )
    page.run(ensemble)
    shown.clear()
    page.say(ensemble)
    assert text(shown).endswith(". Settings: `rate=0.5`, else the defaults.")


def test_settings_of_the_readers_own_are_used_marked_and_written_nowhere(page, shown, tmp_path):
    page.run(ensemble)
    file = tmp_path / "smoke" / "synthetic" / "test.json"
    before = file.read_text("utf-8")
    shown.clear()
    page.run(ensemble, rate=0.7)
    assert {row.settings["rate"] for row in page.rows("synthetic", "ensemble")} == {0.7}
    assert "ensemble (your settings)" in text(shown) and "<code>rate=0.7</code>" in text(shown)
    assert file.read_text("utf-8") == before
    shown.clear()
    page.say(ensemble, "{rm}")
    page.table()
    page.glance()
    said = [thing for thing in shown if "your settings" in thing.data]
    assert len(said) == 3
    page.run(ensemble)
    assert {row.settings["rate"] for row in page.rows("synthetic", "ensemble")} == {0.1}
    assert "your settings" not in page._lines("ensemble")


def test_a_setting_that_is_not_there_is_refused_in_one_sentence(page):
    for wrong in ("rates", "seed"):
        with pytest.raises(book.ParameterError) as caught:
            page.run(ensemble, **{wrong: 1})
        assert str(caught.value) == f"ensemble has no setting {wrong!r}; it has size, rate"
    assert not page.functions


@strategy(category="Yours", cite="", reads=())
def idea(model, forget, retain, task, *, seed=0):
    return Unlearned(copy.deepcopy(model))


def test_an_idea_of_your_own_is_on_the_pages_board_only_where_it_is_named(page, shown, monkeypatch):
    page.run(ensemble)
    page.run(idea, keep=False)
    assert "idea (yours)" in text(shown)
    drawn = []
    monkeypatch.setattr(
        book.charts, "forest", lambda board, **k: drawn.append({s.name for s in board.standings})
    )
    page.chart()
    page.chart(idea)
    assert "idea" not in drawn[0] and "idea" in drawn[1]
    shown.clear()
    page.table()
    assert "idea (yours)" in text(shown)


def test_where_training_is_long_an_idea_is_measured_at_few_seeds_and_compared_at_those(
    page, shown, monkeypatch
):
    page.run(ensemble)
    bench = page.benches["synthetic"]
    assert bench.first_look == len(bench.seeds) == 2
    monkeypatch.setattr(type(bench.load), "tuning_seeds", (1000,))
    assert bench.first_look == 2  # never more than there are
    monkeypatch.setattr(book, "ATTACKED", 1)
    shown.clear()
    page.run(idea, keep=False)
    seeds = lambda name: [row.seed for row in page.rows("synthetic", name)]
    assert seeds("idea") == [0] and seeds("ensemble") == [0, 1]
    assert "at 1 of 2 seeds; <code>page.run(idea, keep=False, seeds=2)</code>" in text(shown)
    monkeypatch.setattr(book.charts, "forest", lambda board, **k: SimpleNamespace(data=board.seeds))
    shown.clear()
    page.chart(idea)
    said = "Everything in this chart is measured at 1 of 2 seeds, those of your idea"
    assert said in text(shown) and "(0,)" in text(shown)
    shown.clear()
    page.chart()
    assert said not in text(shown) and "(0, 1)" in text(shown)
    page.run(idea, keep=False, everywhere=True)
    assert "page.run(idea, keep=False, everywhere=True, seeds=2)" in text(shown)
    board = page._pages_board("synthetic", idea)
    assert board.seeds == (0,)
    assert all(s.status == "ok" for s in board.standings if s.name in ("idea", "ensemble"))
    assert page._pages_board("synthetic").seeds == page._pages_board("synthetic", ensemble).seeds
    assert page._pages_board("synthetic").seeds == (0, 1)
    shown.clear()
    page.run(idea, keep=False, seeds=2)
    assert seeds("idea") == [0, 1] and "takes all" not in text(shown)


@pytest.mark.parametrize("seeds", [0, 3, True, 1.0, "all"])
def test_seeds_of_an_idea_are_a_number_of_the_runs(page, seeds):
    with pytest.raises(book.ParameterError, match=f"a number from 1 to 2, got {seeds!r}"):
        page.run(idea, keep=False, seeds=seeds)
    assert not page.functions


def test_a_strategy_of_the_page_is_measured_at_every_seed(page):
    with pytest.raises(book.ParameterError, match="is for ideas of your own"):
        page.run(ensemble, seeds=1)


def test_a_smoke_run_says_that_it_proves_nothing(page, shown):
    page.run(ensemble)
    for show in (page.chart, page.glance):
        shown.clear()
        show()
        said = html.unescape(text([thing for thing in shown if hasattr(thing, "data")]))
        assert "(2 training seeds) only shows that the page runs: it proves nothing" in said
        failed = [g.name for g in page.board("synthetic").gates if not g.passed]
        assert failed and all(name in said for name in failed)


def test_a_sentence_that_the_readers_edit_changed_stops_nothing(page, shown, monkeypatch):
    page.run(ensemble, rate=0.7)
    page.given["profile"] = "laptop"
    monkeypatch.setattr(book, "CLAIM_SEEDS", 2)
    shown.clear()
    page.claim("it is so", lambda board: False)
    assert text(shown) == (
        "Your edit or your settings (`ensemble`) changed this sentence of the page on "
        "`synthetic`: it is so."
    )
    monkeypatch.setenv(book.progress.BATCH, "1")
    with pytest.raises(AssertionError, match="not true on synthetic: it is so"):
        page.claim("it is so", lambda board: False)


def test_a_selected_request_has_a_page_although_it_names_no_concept(shown, tmp_path):
    page = book.start(
        "ensemble", {"profile": "smoke", "out": str(tmp_path), "request": "most", "seeds": 1}
    )
    page.request()
    page.run(ensemble)
    shown.clear()
    page.say(ensemble, "{m:C1} and {m:C2}")
    assert text(shown).endswith(" and —. Settings: the defaults.")


def test_a_row_whose_score_lacks_a_part_says_so():
    """Smoke rows of `text` were shown with `ok: None` where the flags stand."""
    row = score.board(fabricate.documents()).of("strategy")[0]
    line = book._line(replace(row, rm=None))
    assert line[-1] == "no score: a part of it was not measured"


def test_a_folder_that_cannot_be_written_is_one_sentence_in_a_notebook(tmp_path):
    (tmp_path / "file").write_text("")
    page = book.start("ensemble", {"profile": "smoke", "out": str(tmp_path / "file")})
    with pytest.raises(records.RecordError, match="cannot be written") as caught:
        page.request()
    assert caught.value._render_traceback_() == [f"RecordError: {caught.value}"]


def test_a_strategy_that_does_not_apply_says_why_and_is_escaped(page, shown):
    page.run(cannot, keep=False)
    assert "no &lt;b&gt;second&lt;/b&gt; modality" in text(shown)
    shown.clear()
    page.say(cannot, "{rm}")
    assert "not applicable" in text(shown)


def test_a_strategy_that_was_not_asked_for_is_not_run(shown, tmp_path):
    page = book.start(
        "llm", {"profile": "smoke", "out": str(tmp_path), "strategies": ["ssd"], "seeds": 1}
    )
    known = lambda *a, **k: pytest.fail("it was run")
    known.__name__ = page.known[0]
    page.given["strategies"] = ["another"]
    page.run(known)
    assert "not among the strategies asked for" in text(shown)


def test_the_glance_box_names_the_best_and_the_run(page, shown):
    page.run(ensemble)
    shown.clear()
    page.glance()
    assert "Result at a glance" in text(shown) and "Profile smoke" in text(shown)
    assert 'href="../docs/glossary.md"' in text(shown)
    assert "partial_retrain" in text(shown)


@pytest.mark.parametrize("case", fabricate.FIRST)
def test_the_glance_calls_first_only_who_is_better_than_the_best_cheap_control(case):
    page = object.__new__(book.Page)
    page.known = list(fabricate.FIRST[case]["strategies"])
    page.board = lambda workload, only: score.board(fabricate.documents(**fabricate.FIRST[case]))
    begins, names = fabricate.SAID[case]
    said = page._glance("synthetic")
    verdict = said[: said.index("Retraining for a quarter")]
    assert begins.format(*(f"<code>{name}</code>" for name in names)) in verdict
    assert "lora" not in verdict and "lora" in said
    assert all(f"<code>{name}</code> has a Retrain-Match of" in verdict for name in names)


def test_an_idea_of_your_own_is_not_in_the_glance(page, shown):
    page.run(ensemble)
    page.known.remove("ensemble")
    shown.clear()
    page.glance()
    assert "No strategy of this page ran on synthetic" in text(shown)


def test_departures_come_from_the_marks(page, shown):
    page.run(ensemble)
    shown.clear()
    page.departures()
    assert text(shown) == "**ensemble**\n\n1. It is only a test."


def test_the_references_of_a_page_are_those_that_it_cites(page, shown):
    page.references()
    assert "NegMerge" in text(shown) and 'href="https://arxiv.org/abs/2410.05583"' in text(shown)
    assert "MultiDelete" not in text(shown)


def test_a_claim_is_checked_where_rows_can_carry_it(page, monkeypatch):
    page.run(ensemble)
    asked = []
    false = lambda board: asked.append(board.workload) or False
    page.claim("smoke rows carry no claim", false)
    assert not asked
    page.given["profile"] = "laptop"
    page.claim("two seeds carry no claim", false)
    assert not asked
    monkeypatch.setattr(book, "CLAIM_SEEDS", 2)
    page.claim("about language models", false, where="tokens")
    page.home = "digits"
    page.claim("about the page's own workload", false, where="home")
    assert not asked
    with pytest.raises(AssertionError, match="not true on synthetic: the sentence"):
        page.claim("the sentence", false)
    with pytest.raises(AssertionError, match="not true on synthetic"):
        page.claim("of all there are", false, where="everywhere")
    page.home = "synthetic"
    with pytest.raises(AssertionError, match="not true on synthetic"):
        page.claim("of the page's own", false, where="home")
    page.claim("true", lambda board: board["ensemble"].rm.mean < 101)
    with pytest.raises(ValueError, match="home, everywhere or a need, got 'digits'"):
        page.claim("nowhere", false, where="digits")


def test_your_own_strategy_writes_no_row(page, tmp_path):
    page.run(cannot, keep=False)
    assert not (tmp_path / "smoke" / "synthetic" / "ensemble.json").exists()


def test_cells_of_tables_are_escaped_and_absence_is_a_dash():
    assert "<script>" not in tables.table(("a",), [("<script>",)])
    assert tables.interval(None) == "—" and tables.interval(None, unknown="none") == "none"
    assert tables.interval(score.Interval(1.25, 1.25, 1.25, 1)) == "1.2 (one seed)"
    assert tables.interval(score.Interval(71.23, 69.8, 72.55, 5), 2) == "71.23 (69.80 to 72.55)"
    assert tables.number(-0.001) == "0.00"
    assert tables.number(None) == tables.number(float("nan")) == "—"


def test_a_page_can_ask_for_another_kind_of_request_beside_its_own(page, shown, tmp_path):
    other = page.asking("random", most=1)
    other.run(ensemble)
    assert other.board("synthetic").facts["request_kind"] == "random"
    assert len(other.benches["synthetic"].seeds) == 1 and not page.functions
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")}
    assert "smoke/synthetic-random/test.json" in written
    assert not any(path.startswith("smoke/synthetic/") for path in written)


def test_who_has_no_such_request_is_not_asked_for_it(page):
    assert not page.asking("concept", most=1).benches
    page.functions = {"elsewhere": elsewhere}
    assert not page.asking("random", most=1).benches, "nothing could run on it"
