"""Moving one setting: measured with the code that is here, on tuning seeds, and shown as found."""

from __future__ import annotations

import json
import re

import pytest

from erasus_nb import ROOT, book, cells, keys, moving, records, score, selection, sweeps, workloads
from erasus_nb.__main__ import main
from erasus_nb.benchmark import tuned
from erasus_nb.strategy import settings_of

PAGES = selection.categories(ROOT)


@pytest.fixture(params=PAGES)
def page(request):
    return request.param


def mean(values):
    return sum(values) / len(values)


def at(page: str, value: float) -> sweeps.Point:
    [point] = [p for p in sweeps.read(page).found.points if p.value == value]
    return point


def test_a_sweep_was_measured_with_the_code_and_settings_that_are_here(page):
    sweep = sweeps.read(page)
    assert sweep.found, f"run: python -m erasus_nb sweep {page}"
    now = sweeps.code_now(page, sweep)
    assert now and sweep.found.code == now, f"stale; run: python -m erasus_nb sweep {page}"


def test_another_code_of_the_strategy_makes_a_sweep_stale(tmp_path, monkeypatch):
    """Seen to fail: the comparison above is of the strategy's own text, too."""
    sweep = sweeps.read("gradient")
    notebook = cells.notebook("gradient")
    for cell in notebook["cells"]:
        cell["source"] = cells.text_of(cell).replace(
            "downhill(step, alpha *", "downhill(step, 2 * alpha *"
        )
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "gradient.ipynb").write_text(json.dumps(notebook), "utf-8")
    other = keys.Sources(tmp_path)
    monkeypatch.setattr(keys, "sources", lambda: other)
    assert sweeps.code_now("gradient", sweep) not in (None, sweep.found.code)


def test_a_sweep_holds_what_it_says(page):
    sweep, known = sweeps.read(page), cells.strategies(page)
    load = workloads.load(sweep.workload, sweeps.PROFILE)
    assert sweep.setting in settings_of(known[sweep.strategy])
    assert 6 <= len(sweep.values) <= 8 and list(sweep.values) == sorted(set(sweep.values))
    found = sweep.found
    assert found.seeds == tuple(load.tuning_seeds) and found.chosen in sweep.values
    assert [point.value for point in found.points] == list(sweep.values)
    for point in found.points:
        assert set(point.position) == set(score.POSITIONS)
        for values in (point.rm, point.utility, *point.position.values()):
            assert len(values) == len(found.seeds)
        assert None not in point.rm or point.reason


def test_at_the_chosen_value_a_sweep_found_what_tuning_found(page):
    """Two measurements, made at different times, of the same thing."""
    sweep = sweeps.read(page)
    entry = tuned(page, sweep.strategy, sweep.workload)
    [trial] = [t for t in entry["trials"] if t["settings"] == entry["settings"]]
    assert at(page, sweep.found.chosen).rm == pytest.approx(trial["rm"], abs=1.5)


# ------------------------------------------------------------------ what the pages say of it


def z(page: str, value: float, criterion: str) -> float:
    return mean(at(page, value).position[criterion])


def kept(page: str, value: float) -> float:
    return mean(at(page, value).utility)


def rm(page: str, value: float) -> float:
    return mean(at(page, value).rm)


def test_less_alpha_costs_what_should_stay_and_none_leaves_the_memory():
    for value in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
        assert all(abs(z("gradient", value, c)) < 0.2 for c in score.POSITIONS)
    assert kept("gradient", 0.5) < kept("gradient", 0.8) < kept("gradient", 0.98)
    assert z("gradient", 1.0, "C1") > 0.4 and z("gradient", 1.0, "C3") > 0.8


def test_subtracting_more_than_was_learnt_takes_the_privacy_leak_and_then_utility():
    assert all(z("parameter", 0.0, c) == pytest.approx(1, abs=0.02) for c in score.POSITIONS)
    assert z("parameter", 1.0, "C1") < 0.25 and z("parameter", 1.0, "C2") < 0.25
    assert z("parameter", 1.0, "C3") > 0.8 > 0.2 > z("parameter", 4.0, "C3")
    assert kept("parameter", 2.0) > 0.95 > kept("parameter", 4.0) > kept("parameter", 6.0)


def test_a_short_repair_brings_back_what_should_stay_and_a_longer_one_adds_little():
    assert kept("data", 0.0) < 0.2 and all(z("data", 0.0, c) < 0.2 for c in score.POSITIONS)
    assert kept("data", 0.05) > 0.9 and all(abs(z("data", 0.05, c)) < 0.2 for c in score.POSITIONS)
    assert max(rm("data", v) for v in sweeps.read("data").values) < rm("data", 0.05) + 6


def test_a_larger_tolerance_forgets_more_and_costs_what_should_stay():
    assert z("ensemble", 0.1, "C2") > 0.4
    assert all(abs(z("ensemble", 1.0, c)) < 0.1 for c in ("C1", "C2"))
    assert z("ensemble", 1.0, "C3") > 0.5 and z("ensemble", 5.0, "C3") < 0.2
    assert kept("ensemble", 5.0) < 0.85 < kept("ensemble", 3.0)


def test_flatter_attention_to_learn_from_goes_further_and_spares_what_should_stay():
    taus = sweeps.read("vlm").values
    assert taus[0] == 1.0 and z("vlm", 1.0, "C1") > 0.6 and z("vlm", 1.0, "C3") > 0.8
    assert all(abs(z("vlm", tau, c)) < 0.2 for tau in taus if tau >= 16 for c in score.POSITIONS)
    assert rm("vlm", 2.0) < rm("vlm", 4.0) < rm("vlm", 8.0) < rm("vlm", 16.0)
    assert all(kept("vlm", tau) > 0.9 for tau in taus)


def test_a_small_alpha_destroys_the_language_model_and_a_large_one_selects_nothing():
    for value in (0.5, 1.0):
        assert kept("llm", value) < 0.05 and rm("llm", value) < 5
    assert kept("llm", 1.5) < kept("llm", 2.0) < kept("llm", 3.0)
    assert z("llm", 2.0, "C1") < z("llm", 3.0, "C1")
    assert z("llm", 2.0, "C2") < z("llm", 3.0, "C2")
    assert set(at("llm", 5.0).rm) == {None} and "can select nothing" in at("llm", 5.0).reason


def test_pushing_further_from_a_caption_costs_what_should_stay_and_forgets_little_more():
    assert z("diffusion", 0.0, "C2") <= 0.25 and z("diffusion", 3.0, "C2") > 0.05
    assert 0.25 < kept("diffusion", 0.0) < 0.45 and kept("diffusion", 3.0) < 0.1
    etas = sweeps.read("diffusion").values
    assert all(kept("diffusion", a) > kept("diffusion", b) for a, b in zip(etas, etas[1:]))


# ------------------------------------------------------------------ the picture


def test_a_page_shows_its_sweep_once(page):
    sweep = sweeps.read(page)
    code = [cells.text_of(cell) for _, cell in cells.code_cells(cells.notebook(page))]
    assert code.count(f"page.move({sweep.strategy})") == 1


def test_the_picture_says_what_was_found(page):
    sweep = sweeps.read(page)
    chart = moving.picture(sweep, cells.strategies(page)[sweep.strategy].facts.category)
    best = max((p for p in sweep.found.points if None not in p.rm), key=lambda p: mean(p.rm))
    assert f"highest, {mean(best.rm):.0f}, at {sweep.setting} = {best.value:g};" in chart.title
    assert chart.title in chart.alt and f"Tuning chose {sweep.found.chosen:g}." in chart.alt
    assert sweep.workload in chart.alt and "nan" not in chart.alt


def test_another_value_is_another_picture_with_its_own_words():
    sweep = sweeps.read("gradient")
    drawn = [moving.picture(sweep, "Gradient", number) for number in (0, 5)]
    assert drawn[0].svg() != drawn[1].svg()
    assert drawn[0].alt.startswith(f"alpha = 0.5: Retrain-Match {rm('gradient', 0.5):.1f} ")
    assert "(the value that tuning chose)" in drawn[1].alt
    assert "39% of the utility kept" in drawn[0].alt


def test_a_failed_value_says_why_and_breaks_nothing():
    sweep = sweeps.read("gradient")
    none = (None,) * 4
    failed = sweep.found.points[0].model_copy(
        update={
            "rm": none,
            "utility": none,
            "position": dict.fromkeys(score.POSITIONS, none),
            "reason": "diverged: <b>",
        }
    )
    found = sweep.found.model_copy(update={"points": (failed, *sweep.found.points[1:])})
    sweep = sweep.model_copy(update={"found": found})
    assert moving.told(sweep, failed) == "alpha = 0.5: no result: diverged: <b>."
    assert "none at 0.5" in moving.finding(sweep)
    assert "<b>" not in moving.Moved(sweep, "Gradient")._at(0)
    nothing = sweep.found.model_copy(update={"points": (failed,)})
    nothing = sweep.model_copy(update={"found": nothing})
    assert moving.finding(nothing).endswith("no value of alpha has a result")
    one = sweep.found.model_copy(update={"points": sweep.found.points[1:2]})
    assert moving.finding(sweep.model_copy(update={"found": one})).endswith(" at alpha = 0.7")


def test_the_slider_moves_the_picture():
    shown = moving.Moved(sweeps.read("gradient"), "Gradient").widget()
    slider, picture = shown.children
    before = picture.value
    assert "alpha = 0.98" in before
    slider.index = 0
    assert "alpha = 0.5:" in picture.value and picture.value != before


def test_jupyter_gets_the_slider_and_everybody_else_the_whole_picture():
    bundle = moving.Moved(sweeps.read("gradient"), "Gradient")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "highest" in bundle["text/html"] and "<script" not in bundle["text/html"]


@pytest.fixture
def shown(monkeypatch, tmp_path_factory):
    said = []
    monkeypatch.setattr(book, "display", said.append)
    monkeypatch.setenv("ERASUS_CACHE", str(tmp_path_factory.getbasetemp() / "book-cache"))
    return said


def test_a_page_tells_where_a_sweep_was_measured_and_when_it_is_stale(shown, tmp_path):
    page = book.start("gradient", {"profile": "smoke", "out": str(tmp_path)})
    function = cells.strategies("gradient")["negative_gradient"]
    page.move(function)
    assert isinstance(shown[-2], moving.Moved)
    assert "tuning seeds 1000 to 1003" in shown[-1].data and "changed" not in shown[-1].data
    page._edited.add("negative_gradient")
    page.move(function)
    assert "`negative_gradient` have changed since" in shown[-1].data
    with pytest.raises(ValueError, match="has a sweep of negative_gradient alone"):
        page.move(cells.strategies("gradient")["scrub"])


# ------------------------------------------------------------------ files and the command


def test_a_wrong_file_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "FOLDER", tmp_path)
    with pytest.raises(records.RecordError, match="gradient.json: cannot be read"):
        sweeps.read("gradient")
    (tmp_path / "gradient.json").write_text('{"strategy": 1}')
    with pytest.raises(records.RecordError, match="gradient.json: wrong at strategy"):
        sweeps.read("gradient")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strategy": "scrap"}, "gradient has no strategy 'scrap'; it has gradient_ascent"),
        ({"setting": "alfa"}, "negative_gradient has no setting 'alfa'"),
        ({"values": [0.5]}, "tuning chose alpha=0.98, which is not among the values"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(
    changed, said, tmp_path, monkeypatch, capsys
):
    plan = {**json.loads(sweeps.path_of("gradient").read_text("utf-8")), "found": None, **changed}
    (tmp_path / "gradient.json").write_text(json.dumps(plan))
    monkeypatch.setattr(sweeps, "FOLDER", tmp_path)
    monkeypatch.setattr(sweeps, "_point", lambda *a: pytest.fail("work had begun"))
    assert main(["sweep", "gradient"]) == 2
    assert said in capsys.readouterr().err


def test_the_command_refuses_unknown_pages(capsys, monkeypatch):
    monkeypatch.setattr(sweeps, "measure", lambda *a: pytest.fail("work had begun"))
    assert main(["sweep", "painting"]) == 2
    assert "no 'painting'; there are data" in capsys.readouterr().err


def test_the_command_measures_and_writes(tmp_path, monkeypatch):
    """A whole measurement, small: two values at one seed of the smallest size."""
    plan = json.loads(sweeps.path_of("gradient").read_text("utf-8"))
    plan |= {"values": [0.98, 1.0], "found": None}
    (tmp_path / "gradient.json").write_text(json.dumps(plan))
    monkeypatch.setattr(sweeps, "FOLDER", tmp_path)
    monkeypatch.setattr(sweeps, "PROFILE", "smoke")
    monkeypatch.setenv("ERASUS_CACHE", str(tmp_path / "cache"))
    lines = []
    sweeps.measure("gradient", lines.append)
    found = sweeps.read("gradient").found
    assert [point.value for point in found.points] == [0.98, 1.0]
    assert len(lines) == 2 and re.match(r"gradient negative_gradient alpha=0.98: ", lines[0])
    assert found.settings == {"epochs": 15, "lr": 0.003, "optimizer": "adam"}
    assert all(len(point.rm) == len(found.seeds) for point in found.points)
