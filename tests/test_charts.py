"""Charts: the same bytes for the same rows, a finding as title, and nothing that overlaps."""

from __future__ import annotations

import io
import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import fabricate
import matplotlib
import matplotlib.style
import numpy as np
import pytest
from cycler import cycler
from matplotlib.text import Text

from erasus_nb import charts, score
from erasus_nb.charts import placing

LONG = "a_strategy_whose_name_is_much_longer_than_any_label_should_be"
EVIL = 'boom "><script>alert(1)</script> & $x^2$ \x07'

ON_A_BOARD = {
    "forest": charts.forest,
    "rank_intervals": charts.rank_intervals,
    "positions": charts.positions,
    "axes": charts.axes,
    "quality_against_cost": charts.quality_against_cost,
}


def board(**given) -> score.Board:
    return score.board(fabricate.documents(**given))


@pytest.fixture(scope="module")
def crowded() -> score.Board:
    """17 strategies, 5 controls, 2 references; two without a result, one with a long name."""
    strategies = dict(fabricate.STRATEGIES)
    strategies[LONG] = strategies.pop("mask_based")
    absent = {
        "fisher_forgetting": ("error", EVIL),
        "certified_removal": ("not_applicable", "there is no convex head here " * 9),
    }
    return board(strategies=strategies, absent=absent, analogues=("token_masking",))


CURVES = {
    "original": {0: [0.97, 0.98], 20: [0.98, 0.98], 40: [0.99, 0.98]},
    "retrained": {0: [0.0, 0.02], 20: [0.01, 0.03], 40: [0.02, 0.05]},
    "scrub": {0: [0.0, 0.01], 20: [0.3, 0.2], 40: [0.97, 0.99]},
    "sisa": {0: [0.0, 0.01], 20: [0.01, 0.02], 40: [0.03, 0.04]},
    "lora": {0: [0.3, 0.31], 20: [0.8, 0.82], 40: [0.985, 0.98]},
}


def groups(pictures: bool) -> list:
    draw = np.random.default_rng(0)
    labels = ("forget: concept", "forget: canaries", "retain", "holdout, never trained")
    shape = (10, 8, 8) if pictures else (40, 2)
    return [(label, draw.random(shape)) for label in labels]


def heat_map(**more) -> charts.Chart:
    draw = np.random.default_rng(0)
    tables = {name: draw.random((7, 7)) for name in ("original", LONG, "scrub", "retrained")}
    pictures = [draw.integers(0, 256, (8, 8)) for _ in range(7)]
    words = [f"number {k}, {EVIL}" for k in range(7)]
    given = {"split": 3, "measure": "cosine", "title": "They stand out", "alt": "Rows."} | more
    return charts.heat_maps(tables, pictures, words, **given)


def trade_off() -> charts.Chart:
    """Two panels with a front each; one point has no place on a log scale."""
    points = [
        charts.Point("projection", 0.02, 0.01, True, False),
        charts.Point("layers.1.mlp.fc1", 0.1, 0.05, True, True),
        charts.Point(EVIL, 0.12, 0.2, True, False),
        charts.Point("dominated", 0.3, 0.002, False, False),
        charts.Point("dead", 0.3, 0.0, False, False),
    ]
    panels = {"vision": points, "text": [p._replace(chosen=False) for p in points[:2]]}
    return charts.trade_off(panels, "alignment", "importance", "VLM", "One is taken", "Points.")


def every_chart(of: score.Board) -> dict[str, charts.Chart]:
    drawn = {name: draw(of) for name, draw in ON_A_BOARD.items()}
    drawn["relearning"] = charts.relearning(CURVES, "concept accuracy", {"scrub": "Gradient"})
    drawn["pictures"] = charts.request_picture(groups(pictures=True))
    drawn["scatter"] = charts.request_picture(groups(pictures=False))
    drawn["heat_maps"] = heat_map()
    drawn["trade_off"] = trade_off()
    return drawn


@pytest.fixture(scope="module")
def drawn(crowded) -> dict[str, charts.Chart]:
    return every_chart(crowded)


@pytest.fixture(scope="module")
def pages(drawn) -> dict[str, str]:
    return {name: chart._repr_html_() for name, chart in drawn.items()}


def texts(chart: charts.Chart) -> list[Text]:
    """Every text that is drawn; ticks beyond the axes keep labels that never are."""
    found = list(chart.figure.texts)
    for axes in chart.figure.axes:
        found += axes.texts
        if not axes.axison:
            found.append(axes.title)
            continue
        found += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks() + axis.get_minor_ticks()
            ticks = [tick for tick in ticks if low <= tick.get_loc() <= high]
            both = [label for tick in ticks for label in (tick.label1, tick.label2)]
            found += [label for label in both if label.get_visible()]
    return [text for text in found if text.get_text().strip()]


def box(text: Text):
    """What the letters cover, without a leader line."""
    text.figure.canvas.get_renderer()
    return Text.get_window_extent(text)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def parsed(page: str) -> list[tuple[str, dict]]:
    reader = _Tags()
    reader.feed(page)
    return reader.tags


# ------------------------------------------------------------------------ the markup


def test_the_same_rows_give_the_same_bytes(crowded, pages):
    for name, chart in every_chart(crowded).items():
        assert chart._repr_html_() == pages[name], name


#: What a matplotlibrc may hold; each of these would show in a chart.
FOREIGN = {
    "font.family": ["serif"],
    "font.size": 14.0,
    "axes.grid": True,
    "axes.titlesize": 20.0,
    "lines.linewidth": 4.0,
    "lines.markersize": 11.0,
    "xtick.direction": "in",
    "axes.xmargin": 0.3,
    "figure.dpi": 200.0,
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "svg.hashsalt": "other",
    "image.cmap": "jet",
    "axes.prop_cycle": cycler(color=["red"]),
}


def test_settings_of_a_readers_own_change_no_byte(crowded, pages):
    with matplotlib.rc_context(FOREIGN):
        again = {name: chart._repr_html_() for name, chart in every_chart(crowded).items()}
        assert again == pages
        assert matplotlib.rcParams["lines.linewidth"] == 4.0, "the reader's own are put back"


def test_the_alt_text_is_there_and_a_reason_cannot_become_markup(drawn, pages):
    for name, chart in drawn.items():
        tags = parsed(pages[name])
        tag, attributes = tags[0]
        # Who enters a group finds its rows; a picture without rows is one thing.
        role = "group" if chart.rows else "img"
        assert (tag, attributes["role"]) == ("figure", role), name
        assert attributes["aria-label"] == chart.alt, name
        assert chart.title in chart.alt or name in ("pictures", "scatter"), name
        assert "script" not in {tag for tag, _ in tags}, name
    assert "alert(1)" in pages["forest"]  # it is shown, as text


def test_alt_text_itself_is_escaped():
    chart = charts.relearning(
        {**CURVES, '"><b onclick="x">': CURVES["scrub"]}, "accuracy", {"sisa": "Data"}
    )
    tags = parsed(chart._repr_html_())
    assert tags[0][1]["aria-label"] == chart.alt
    assert '"><b onclick="x">' in chart.alt
    assert "b" not in {tag for tag, _ in tags}


def svgs(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def svg(page: str) -> str:
    return svgs(page)[0]


def named(root: ET.Element, tag: str) -> list[ET.Element]:
    return [element for element in root.iter() if element.tag.endswith(f"}}{tag}")]


def test_the_picture_follows_the_page(drawn, pages):
    for name, page in pages.items():
        assert len(svgs(page)) == (1 if drawn[name].narrow is None else 2), name
        for text in svgs(page):
            root = ET.fromstring(text)  # well formed
            assert root.get("width") is None and root.get("height") is None, name
            assert root.get("viewBox") and root.get("fill") == "currentColor", name
            assert "currentColor" in text and "#000000" not in text, name
            assert "metadata" not in text and "font-family" not in text, name
            # Every category's colour can change with the theme.
            colours = {mark.colour.lower() for mark in charts.PALETTE.values()}
            for colour in colours & set(re.findall("#[0-9a-f]{6}", text)):
                assert not re.search(rf"(?<!,){colour}", text), (name, colour)


def test_ids_are_told_apart_on_a_page_of_many_charts(pages):
    ids = [value for page in pages.values() for value in re.findall(r'\bid="([^"]*)"', page)]
    assert len(ids) == len(set(ids))
    for page in pages.values():
        text = "".join(svgs(page))
        assert set(re.findall(r"url\(#([^)]*)\)", text)) == set(re.findall(r' id="([^"]*)"', text))


def test_every_label_stays_text(pages):
    root = ET.fromstring(svg(pages["forest"]))
    written = {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")}
    assert {"scrub", "fine_tune (control)", "token_masking (analogue)", "tier"} <= written


# ------------------------------------------------------------------------ the layout


def test_no_text_is_smaller_than_nine_points_and_none_leaves_the_figure(drawn):
    for name, chart in drawn.items():
        figure = chart.figure
        figure.canvas.draw()
        width, height = figure.get_size_inches() * figure.dpi
        for text in texts(chart):
            assert text.get_fontsize() >= 9, (name, text.get_text())
            b = box(text)
            inside = b.x0 > -1 and b.y0 > -1 and b.x1 < width + 1 and b.y1 < height + 1
            assert inside, (name, text.get_text())


def _no_overlap(labels: list[Text]) -> None:
    for a, b in itertools.combinations(labels, 2):
        one, two = box(a).shrunk(0.99, 0.9), box(b).shrunk(0.99, 0.9)
        assert not one.overlaps(two), (a.get_text(), b.get_text())


def test_labels_do_not_overlap_when_points_crowd():
    crowd = {
        name: (category, 0.3 + 0.004 * i, 0.93, 0.2 + 0.003 * i)
        for i, (name, (category, *_)) in enumerate(fabricate.STRATEGIES.items())
    }
    chart = charts.quality_against_cost(board(strategies=crowd))
    chart.figure.canvas.draw()
    labels = list(chart.figure.axes[0].texts)
    assert len(labels) == 17 + 5 + 3  # rows, original, retrained, "as long as retraining"
    _no_overlap(labels)


def test_labels_find_a_place_when_every_interval_is_wide():
    wild = board(seeds=2)  # with two seeds a t interval reaches over most of the scale
    chart = charts.quality_against_cost(wild)
    chart.figure.canvas.draw()
    width, height = chart.figure.get_size_inches() * chart.figure.dpi
    labels = list(chart.figure.axes[0].texts)
    _no_overlap(labels)
    for label in labels:
        b = box(label)
        assert 0 < b.x0 and b.x1 < width and 0 < b.y0 and b.y1 < height, label.get_text()


def test_labels_at_the_ends_of_curves_do_not_overlap(drawn):
    chart = drawn["relearning"]
    chart.figure.canvas.draw()
    labels = list(chart.figure.axes[0].texts)
    assert len(labels) == len(CURVES)
    _no_overlap(labels)


@pytest.mark.parametrize(
    "name", ["forest", "positions", "axes", "pictures", "heat_maps", "trade_off"]
)
def test_labels_do_not_overlap_in_rows_and_panels(drawn, name):
    drawn[name].figure.canvas.draw()
    _no_overlap(texts(drawn[name]))


def test_there_are_no_spare_spines(drawn):
    for name, chart in drawn.items():
        for axes in chart.figure.axes:
            if axes.axison:
                assert not axes.spines["top"].get_visible(), name
                assert not axes.spines["right"].get_visible(), name


@pytest.mark.parametrize(
    "wanted, places",
    [
        ([1, 5, 9], [1, 5, 9]),
        ([5, 5], [4, 6]),
        ([5, 5, 5], [3, 5, 7]),
        ([9, 1], [9, 1]),
        ([0, 0], [0, 2]),
        ([10, 10], [8, 10]),
        ([], []),
    ],
)
def test_labels_move_as_little_as_they_must(wanted, places):
    assert placing.spread(wanted, 2, 0, 10) == pytest.approx(places)


def test_a_label_of_two_lines_takes_the_room_of_two():
    assert placing.spread([5, 5, 12], [4, 2, 2], 0, 20) == pytest.approx([3.5, 6.5, 12])
    assert placing.spread([5, 5, 12], [2, 4, 2], 0, 20) == pytest.approx([3.5, 6.5, 12])


# ------------------------------------------------------------------------ what it says


def test_the_title_names_whoever_wins():
    few = {name: fabricate.STRATEGIES[name] for name in ("scrub", "lora", "sparse_aware")}
    better, worse = ("Data", 0.02, 0.95, 0.2), ("Data", 0.9, 0.95, 0.2)
    one = board(strategies={**few, "sisa": better})
    other = board(strategies={**few, "sisa": worse, "lora": ("Parameter", 0.0, 0.95, 0.2)})
    for draw in (charts.forest, charts.rank_intervals, charts.quality_against_cost):
        assert "sisa" in draw(one).title and "lora" not in draw(one).title
        assert "lora" in draw(other).title and "sisa" not in draw(other).title
        assert draw(other).title in draw(other).alt


def test_a_tie_of_everybody_is_said_as_such():
    same = {name: ("Gradient", 0.2, 0.95, 0.2) for name in ("a", "b", "c", "d")}
    title = charts.forest(board(strategies=same)).title
    assert "b, c, a and d share the first place, as far as the seeds can tell" in title


def test_a_control_that_does_as_well_is_in_the_title():
    fair = board(strategies={"scrub": ("Gradient", 0.2, 0.95, 0.4)})
    assert "; the control partial_retrain comes closer to retraining" in charts.forest(fair).title
    assert "the control partial_retrain is at least as" in charts.quality_against_cost(fair).title
    good = board(strategies={"scrub": ("Gradient", 0.0, 0.95, 0.4)})
    assert "partial_retrain" not in charts.forest(good).title
    assert "partial_retrain" not in charts.quality_against_cost(good).title


@pytest.mark.parametrize("case", fabricate.FIRST)
@pytest.mark.parametrize(
    "draw", [charts.forest, charts.rank_intervals, charts.quality_against_cost]
)
def test_titles_call_first_only_who_is_better_than_the_best_cheap_control(case, draw):
    of = board(**fabricate.FIRST[case])
    begins, names = fabricate.SAID[case]
    chart = draw(of)
    if draw is not charts.quality_against_cost:
        assert begins.format(*names) in chart.title
    assert all(name in chart.title for name in names) and of.bar.name in chart.title
    # It may hold the first rank and is drawn, but no sentence names it.
    assert of["lora"].rank[0] == 1 and "lora" not in chart.title
    assert chart.title in chart.alt


def test_a_partial_row_is_last_and_says_on_how_many_seeds_it_stands():
    of = board(missing={"scrub": (3, 4), "random_label": (0,)})
    chart = charts.forest(of)
    labels = [t.get_text() for t in chart.figure.axes[0].get_yticklabels()]
    assert labels[-2:] == ["scrub (3 seeds)", "random_label (control)"]
    assert "scrub" not in chart.title
    assert of.bar.name == "random_label", "a failed seed takes no control out of the way"
    # A title names the control that costs as much only where it is whole.
    fair = {"scrub": ("Gradient", 0.2, 0.95, 0.4)}
    for draw in (charts.forest, charts.quality_against_cost):
        assert "partial_retrain" in draw(board(strategies=fair)).title
        less = board(strategies=fair, missing={"partial_retrain": (1,)})
        assert "partial_retrain" not in draw(less).title


def test_slower_than_retraining_is_said():
    slow = {"ensemble": ("Ensemble", 0.1, 0.95, 2.0)}
    title = charts.quality_against_cost(board(strategies=slow)).title
    assert "no strategy takes less time than retraining" in title


def test_overshooting_is_counted_and_drawn_as_an_arrow_with_its_number():
    far = {"gradient_ascent": ("Gradient", -4.0, 0.9, 0.1), "scrub": ("Gradient", 0.0, 0.95, 0.3)}
    of = board(strategies=far)
    chart = charts.positions(of)
    assert "1 goes beyond retraining" in chart.title and "1 of 2" in chart.title
    # Rates end at 0, which for the attack's AUC is far below a retrained model's.
    far = [text.get_text() for text in texts(chart) if re.fullmatch(r"-\d\.\d", text.get_text())]
    assert sorted(far) == sorted(
        f"{s.position['C3'].mean:.1f}"
        for s in of.of("strategy", "control")
        if s.position["C3"].mean < -1.35
    )
    assert len(far) == 2


def test_the_title_says_which_part_is_weakest():
    useless = {n: ("LLM", 0.0, 0.3, 0.1) for n in ("ssd", "token_masking")}
    assert "utility is the weakest part of 2 of 2" in charts.axes(board(strategies=useless)).title


def test_relearning_says_who_comes_back():
    assert "sisa stays near retrained" in charts.relearning(CURVES, "accuracy").title
    low, high = CURVES["retrained"], CURVES["original"]
    middle = {k: [0.7 * a + 0.3 * b for a, b in zip(low[k], high[k])] for k in low}
    ends = {"original": high, "retrained": low}
    title = charts.relearning({**ends, "lora": high}, "accuracy").title
    assert title.endswith("lora was not forgotten in the first place")
    title = charts.relearning({**ends, "lora": middle}, "accuracy").title
    assert title.endswith("lora hardly rises and stays between retrained and original")
    swapped = {**CURVES, "sisa": CURVES["scrub"], "scrub": CURVES["sisa"]}
    title = charts.relearning(swapped, "accuracy").title
    assert "scrub stays near retrained" in title and "lora and sisa" in title.replace(
        "sisa and lora", "lora and sisa"
    )


def test_the_words_of_a_relearning_chart_say_who_came_back_and_who_did_not():
    steps = (0, 10)
    line = lambda *values: {step: [value] for step, value in zip(steps, values)}
    curves = {"original": line(1.0, 1.0), "retrained": line(0.0, 0.1)}
    curves |= {"a": line(0.05, 0.12), "b": line(0.1, 0.4), "c": line(0.1, 0.9)}
    curves |= {"d": line(0.9, 1.0), "e": line(0.3, 0.3)}
    alt = charts.relearning(curves, "accuracy").alt
    assert "Came back: b (0.10 to 0.40), c (0.10 to 0.90)." in alt
    assert "Did not come back: a (0.05 to 0.12), e (0.30 to 0.30)." in alt
    assert "Was not forgotten before the attack: d (0.90 to 1.00)." in alt
    assert "original (1.00 to 1.00) and retrained (0.00 to 0.10)" in alt


def test_emphasis_and_subset_leave_the_other_strategies_out(crowded):
    chart = charts.forest(crowded, names=["scrub", "lora"], emphasise=["scrub"])
    labels = {t.get_text(): t.get_fontweight() for t in chart.figure.axes[0].get_yticklabels()}
    assert labels["scrub"] == "bold" and labels["lora"] == "normal"
    assert "sisa" not in labels and "partial_retrain (control)" in labels


# ------------------------------------------------------------------------ odd rows


def test_rows_without_a_score_stand_last_with_their_reason(drawn):
    axes = drawn["forest"].figure.axes[0]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert set(labels[-2:]) == {"certified_removal", "fisher_forgetting"}
    notes = [t.get_text() for t in axes.texts if t.get_text().startswith("—")]
    assert any(note.startswith("— errored: boom") and "$x^2$" in note for note in notes)
    assert any(note.startswith("— not applicable") and note.endswith("…") for note in notes)
    assert "Without a score: certified_removal, fisher_forgetting" in drawn["forest"].alt


def test_one_seed_is_drawn_and_said():
    single = board(seeds=1)
    assert "One training seed tells nothing apart" in charts.forest(single).title
    for draw in ON_A_BOARD.values():
        assert draw(single).figure.axes


def test_a_board_without_strategies_still_draws():
    empty = board(strategies={})
    assert charts.forest(empty).title == "No strategy has a score on synthetic"
    for draw in ON_A_BOARD.values():
        assert draw(empty).figure.axes


def test_a_strategy_of_ones_own_is_near_black_and_a_star():
    mine = board(strategies={"mine": ("Yours", 0.1, 0.95, 0.3)})
    mark = charts.mark_of(mine["mine"])
    assert (mark.colour, mark.marker) == ("#000000", "*")
    assert "mine" in charts.forest(mine).title


def test_what_is_not_there_is_refused_by_name(crowded):
    with pytest.raises(KeyError, match="nobody"):
        charts.forest(crowded, names=["nobody"])
    with pytest.raises(ValueError, match="retrained"):
        charts.relearning({"original": CURVES["original"]}, "accuracy")


# ------------------------------------------------------------------------ language models

LEVELS = {"original": (0.9, 0.9), "retrained": (0.1, 0.9)}


def test_a_course_says_who_loses_what_should_stay():
    curves = {
        "breaker": [(0.0, 0.9, 0.9), (0.1, 0.2, 0.3)],
        "careful": [(0.0, 0.9, 0.9), (0.2, 0.2, 0.85)],
    }
    chart = charts.course(curves, LEVELS, {"careful": "LLM"})
    assert "breaker loses retained answers" in chart.title
    assert "careful" not in chart.title
    assert "careful: forget 0.90 to 0.20, retain 0.90 to 0.85" in chart.alt
    left, right = chart.figure.axes
    drawn = {tuple(line.get_ydata()) for line in left.lines}
    assert {(0.9, 0.2)} <= drawn
    assert (0.9, 0.85) in {tuple(line.get_ydata()) for line in right.lines}


def test_leaks_count_both_sides(crowded):
    from erasus_nb import metrics

    chart = charts.leaks(crowded)
    level = crowded["retrained"].metrics["C3"].mean
    found = [
        metrics.privleak(s.metrics["C3"].mean, level) for s in crowded.of("strategy") if s.metrics
    ]
    under, over = sum(x < -10 for x in found), sum(x > 10 for x in found)
    assert chart.title.startswith(f"Of {len(found)} strategies, {under} leave")
    assert f"{over} make it stranger" in chart.title
    names = [t.get_text() for t in chart.figure.axes[0].get_yticklabels()]
    assert any("original" in name for name in names)


# ------------------------------------------------------------------------ the palette


def _contrast(a: str, b: str) -> float:
    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    dark, bright = sorted((light(a), light(b)))
    return (bright + 0.05) / (dark + 0.05)


def test_marks_can_be_seen_on_both_pages_and_told_apart_without_colour():
    marks = [*charts.PALETTE.values(), charts.CONTROL]
    for mark in marks:
        assert _contrast(mark.colour, "#ffffff") >= 3
        assert _contrast(mark.dark, "#121212") >= 3
    assert len({mark.colour for mark in marks}) == len({mark.dark for mark in marks}) == 8
    assert len({mark.marker for mark in charts.PALETTE.values()}) == 7


def test_the_grey_band_reaches_from_the_lowest_to_the_highest_retrained_seed(crowded, drawn):
    seeds = crowded["retrained"].rm_by_seed.values()
    (band,) = drawn["forest"].figure.axes[0].patches
    assert band.get_x() == pytest.approx(min(seeds))
    assert band.get_x() + band.get_width() == pytest.approx(max(seeds))


def test_a_long_measure_fits_beside_its_axis():
    chart = charts.relearning(
        CURVES,
        "text: answers about the other people, unseen phrasing (share; higher: more came back)",
    )
    figure = chart.figure
    figure.canvas.draw()  # a label has no place before
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert label.x0 >= 0 and label.y0 >= 0 and label.y1 <= figure.bbox.height


# ------------------------------------------------------------------------ heat maps, trade-offs


def shown(axes) -> np.ndarray:
    """The values of a heat map as they stand on the page, parts side by side again."""
    images = {tuple(image.get_extent()): image.get_array() for image in axes.images}
    tops = sorted({extent[3] for extent in images})
    lefts = sorted({extent[0] for extent in images})
    at = {(extent[3], extent[0]): array for extent, array in images.items()}
    return np.vstack([np.hstack([at[top, left] for left in lefts]) for top in tops])


def test_heat_maps_show_every_value_on_one_scale():
    tables = {
        "one": np.arange(16.0).reshape(4, 4),
        "other": np.arange(16.0)[::-1].reshape(4, 4) - 5,
    }
    pictures, words = [np.zeros((2, 2, 3))] * 4, list("abcd")
    for split in (0, 1, 4):
        chart = charts.heat_maps(tables, pictures, words, split, "cosine", "Found", "Rows.")
        panels = chart.figure.axes[:2]
        for axes, table in zip(panels, tables.values(), strict=True):
            assert np.array_equal(shown(axes), table)
            assert {image.get_clim() for image in axes.images} == {(-5.0, 15.0)}
    assert "one, other" in chart.alt and chart.alt.endswith("Rows.")


def test_a_heat_map_has_a_picture_for_each_row_with_its_own_pixels():
    chart = heat_map()
    rows = chart.figure.axes[4]
    assert len(rows.images) == 7 and all(image.get_array().shape == (8, 8) for image in rows.images)
    # Every row, every part of each table, and the scale: none is merged with another.
    assert chart.svg().count("<image") == 7 + 4 * 4 + 1


def test_a_trade_off_joins_the_front_and_names_it_and_what_was_chosen():
    chart = trade_off()
    vision, text = chart.figure.axes
    line = next(line for line in vision.lines if line.get_linestyle() == "-")
    assert line.get_xdata().tolist() == [0.02, 0.1, 0.12]
    weights = {t.get_text(): t.get_fontweight() for t in vision.texts}
    assert weights["layers.1.mlp.fc1"] == "bold" and weights["projection"] == "normal"
    assert "dominated" not in weights and "dead" not in weights
    ring = lambda axes: [line for line in axes.lines if line.get_markersize() == 10]
    assert [(r.get_xdata()[0], r.get_ydata()[0]) for r in ring(vision)] == [(0.1, 0.05)]
    assert not ring(text)


def test_a_trade_off_without_points_still_draws():
    chart = charts.trade_off({"vision": []}, "alignment", "importance", "VLM", "None", "")
    assert chart.figure.axes and "<svg" in chart.svg()


# ------------------------------------------------------------------ rows, key, phone, weight


def own_rows(chart: charts.Chart, narrow: bool = False) -> list[ET.Element]:
    groups = named(ET.fromstring(chart.svg(narrow)), "g")
    return [group for group in groups if group.get("class") == "row"]


def test_every_row_says_its_name_its_score_and_what_the_chart_shows(crowded, drawn):
    interval = lambda found, digits: (
        f"{found.mean:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"
    )
    shows = {
        "forest": lambda s: [f"Retrain-Match {interval(s.rm, 1)}", f"tier {s.tier}"],
        "rank_intervals": lambda s: [interval(s.rm, 1), f"rank {s.rank[0]}"],
        "positions": lambda s: [interval(s.position[c], 2) for c in ("C1", "C2", "C3")],
        "axes": lambda s: [f"privacy {interval(s.privacy, 2)}"],
        "quality_against_cost": lambda s: [interval(s.rm, 1), f"{s.time_ratio:.2g} of the time"],
    }
    for name, parts in shows.items():
        said = ["".join(title.itertext()) for row in own_rows(drawn[name]) for title in row[:1]]
        printable = ["".join(c for c in row if c.isprintable()) for row in drawn[name].rows]
        assert said == [" ".join(row.split()) for row in printable], name
        for line in crowded.of("strategy"):
            if line.rm is None:
                continue
            (own,) = [text for text in said if text.startswith(line.name[:29])]
            assert all(part in own for part in parts(line)), (name, own)
    errored = next(text for text in drawn["forest"].rows if text.startswith("fisher_forgetting"))
    assert "errored: boom" in errored


def test_all_parts_of_a_row_are_in_its_group_on_both_drawings(crowded, drawn):
    for name in ON_A_BOARD:
        chart = drawn[name]
        wide, narrow = own_rows(chart), own_rows(chart, narrow=True)
        assert len(wide) == len(narrow) == len(chart.rows), name
        for said, *both in zip(chart.rows, wide, narrow, strict=True):
            for row in both:
                texts = ["".join(text.itertext()) for text in named(row, "text")]
                assert any(text and said.startswith(text.split(" ")[0]) for text in texts) or (
                    name == "quality_against_cost" and any(said.split(":")[0] in t for t in texts)
                ), (name, said)
                assert named(row, "path") or named(row, "circle"), (name, said)


def test_the_key_explains_every_colour_and_shape_that_is_drawn(crowded, drawn):
    for name in ("forest", "positions", "axes", "quality_against_cost"):
        for figure in (drawn[name].figure, drawn[name].narrow):
            words = {text.get_text() for text in figure.texts}
            tried = {line.category for line in crowded.of("strategy") if line.rm}
            assert tried | {"control", "95 % interval of the mean"} <= words, name
            assert ("one training seed" in words) == (name in ("forest", "positions"))
            shapes = {(line.get_marker(), line.get_markerfacecolor()) for line in figure.artists}
            for category in tried:
                mark = charts.PALETTE[category]
                assert (mark.marker, mark.colour) in shapes, (name, category)
    one = charts.forest(crowded, names=["scrub"])
    words = {text.get_text() for text in one.figure.texts}
    assert "Gradient" in words and not words & (charts.PALETTE.keys() - {"Gradient"})


def test_the_ring_is_in_the_key_only_where_one_is_drawn(crowded):
    says = "also keeps data from training time"
    for of in (crowded, board(strategies={"scrub": ("Gradient", 0.1, 0.95, 0.3)})):
        chart = charts.quality_against_cost(of)
        ringed = [line for line in of.of("strategy", "control") if line.extra_storage_bytes]
        assert (says in {t.get_text() for t in chart.figure.texts}) == bool(ringed)


@pytest.mark.parametrize("name", [*ON_A_BOARD, "relearning", "pictures", "scatter", "trade_off"])
def test_on_a_phone_no_label_covers_another_or_leaves_the_figure(drawn, name):
    figure = drawn[name].narrow
    figure.canvas.draw()
    wide, tall = figure.get_size_inches() * figure.dpi
    labels = [text for text in _phone_texts(figure) if text.get_visible()]
    if name != "relearning":  # its labels are spread, a test of its own says
        _no_overlap(labels)
    for text in labels:
        b = box(text)
        inside = b.x0 > -1 and b.y0 > -1 and b.x1 < wide + 1 and b.y1 < tall + 1
        assert inside and text.get_fontsize() >= 9, text.get_text()
    # 358 pixels are what a phone of 390 leaves beside its margins.
    assert 9 * 358 / (72 * figure.get_size_inches()[0]) >= 10


def _phone_texts(figure) -> list[Text]:
    return texts(charts.Chart(figure, "", ""))


def _segments(line):
    """The pieces of a drawn line in pixels; a marker alone has none."""
    path = line.get_transform().transform(np.column_stack(line.get_data()))
    return [(a, b) for a, b in itertools.pairwise(path) if np.isfinite([*a, *b]).all()]


@pytest.mark.parametrize("name", ["forest", "rank_intervals", "positions", "axes"])
@pytest.mark.parametrize("paper", ["figure", "narrow"])
def test_no_line_runs_through_a_text(drawn, name, paper):
    figure = getattr(drawn[name], paper)
    figure.canvas.draw()
    pieces = [piece for axes in figure.axes for line in axes.lines for piece in _segments(line)]
    assert len(pieces) >= 15
    for text in _phone_texts(figure):
        b = box(text).shrunk(0.98, 0.8)
        for start, end in pieces:
            spots = start + np.linspace(0, 1, 40)[:, None] * (end - start)
            x, y = spots.T
            inside = (b.x0 < x) & (x < b.x1) & (b.y0 < y) & (y < b.y1)
            assert not inside.any(), text.get_text()


def test_what_runs_behind_the_labels_of_a_scatter_is_interrupted(drawn):
    # Lines are drawn before all rows, and each label has a rim in the page's colour.
    for name in ("quality_against_cost", "trade_off"):
        root = ET.fromstring(svg(drawn[name]._repr_html_()))
        kinds = ["row" if child.get("class") == "row" else "line" for child in root]
        assert kinds == sorted(kinds), name
        labels = [text for text in named(root, "text") if text.get("class") == "label"]
        assert len(labels) >= 4
    assert ".label{paint-order:stroke" in drawn["trade_off"]._repr_html_()


def test_seeds_are_drawn_where_their_values_are(crowded, drawn):
    chart = drawn["forest"]
    axes = chart.figure.axes[0]
    chart.figure.canvas.draw()
    tall = 72 * chart.figure.get_size_inches()[1]
    rows = [line for line in crowded.standings if line.kind in ("strategy", "control") and line.rm]
    for number, line in enumerate(rows):
        dots = next(p for p in named(own_rows(chart)[number], "path") if "h0" in p.get("d"))
        steps = [
            (float(x), float(y))
            for x, y in re.findall(r"(-?[\d.]+)[ ]?(-?[\d.]+)h0", dots.get("d"))
        ]
        found = np.cumsum(steps, axis=0)
        wanted = [axes.transData.transform((v, number + 0.24)) for v in line.rm_by_seed.values()]
        wanted = np.array(wanted) * 72 / chart.figure.dpi
        wanted[:, 1] = tall - wanted[:, 1]
        for x, y in wanted:
            assert np.hypot(*(found - (x, y)).T).min() < 0.1, line.name


def test_both_drawings_together_weigh_less_than_one_by_matplotlib(crowded, drawn):
    for name in ON_A_BOARD:
        target = io.StringIO()
        with matplotlib.style.context(["default", {"svg.fonttype": "none"}]):
            drawn[name].figure.savefig(target, format="svg")
        assert len(drawn[name].svg()) < 0.4 * len(target.getvalue()), name
        assert len(drawn[name]._repr_html_()) < 0.8 * len(target.getvalue()), name


def test_a_chart_without_a_drawing_for_a_phone_scrolls_and_takes_the_keyboard(drawn):
    chart = charts.traced({"state": np.eye(3)}, ["a", "b", "c"], 0.9, 0.1)
    tag, attributes = parsed(chart._repr_html_())[0]
    assert attributes["tabindex"] == "0" and attributes["role"] == "img"
    assert "overflow-x:auto" in chart._repr_html_() and 'class="only"' in chart.svg()
    with pytest.raises(ValueError, match="no drawing for a phone"):
        chart.svg(narrow=True)
