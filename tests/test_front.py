"""The front page and the boards as HTML: numbers from rows, words on everything."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import fabricate
import pytest
from test_score import absent, between, board_of, rows

from erasus_nb import ROOT, advice, cells, front, marks, overall, score

BOARD = board_of(
    rows("scrub", between(0.1)),
    rows("amnesiac", between(0.05)),
    rows("lora", between(0.4), analogue=True),
    absent("ssd", "not_applicable", "<b>no</b> & none"),
)
TWO = {"toy": BOARD, "two": board_of(rows("scrub", between(0.3)), rows("amnesiac", between(0.1)))}


@pytest.fixture(scope="module")
def lines():
    return overall.overall(TWO)


def tree(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{html}</div>")


def text(element) -> str:
    return "".join(element.itertext())


# ------------------------------------------------------------------ what pages declare


def test_the_marks_read_from_source_are_those_of_the_functions():
    found = marks.marks()
    real = {
        name: (page, function.facts.declared)
        for page in sorted({mark.page for mark in found.values()})
        for name, function in cells.strategies(page).items()
    }
    assert {n: (m.page, tuple(m.reads)) for n, m in found.items()} == real and len(real) == 29


def test_needs_name_records_and_leave_out_what_everybody_has():
    found = marks.marks()
    assert found["amnesiac"].needs == ("retain set", "update log", "labels")
    assert found["amnesiac"].records == ("update log",)
    assert found["safe_latents"].needs == () == found["scrub"].records
    assert "labels" not in found["knowledge_distillation"].needs


def test_every_strategy_has_the_section_that_its_link_names():
    for name, mark in marks.marks().items():
        headings = [
            cells.text_of(cell).splitlines()[0]
            for cell in cells.notebook(mark.page)["cells"]
            if cell["cell_type"] == "markdown"
        ]
        assert f"## {name}" in headings
        page, _, anchor = marks.section(name, mark.page).partition("#")
        assert page == f"notebooks/{mark.page}.html" and anchor == name.replace("_", "-")


# ------------------------------------------------------------------ tables


def test_a_board_has_every_standing_with_its_numbers_and_its_link():
    html = front.board_table(BOARD, "../")
    body = tree(html).find(".//tbody")
    names = [re.match(r"\w+", text(row[0]))[0] for row in body]
    assert names == [s.name for s in BOARD.standings]
    first = body[names.index("scrub")]
    assert f"{BOARD['scrub'].rm.mean:.1f}" in text(first[1])
    assert first[0].find("a").get("href") == "../notebooks/gradient.html#scrub"
    assert body[names.index("original")].find(".//a") is None


def test_what_is_missing_has_no_value_to_sort_by_and_a_number_has_its_own():
    body = tree(front.board_table(BOARD)).find(".//tbody")
    by_name = {re.match(r"\w+", text(row[0]))[0]: row for row in body}
    assert by_name["ssd"][1].get("data-order") == "" and text(by_name["ssd"][1]) == "—"
    assert float(by_name["scrub"][1].get("data-order")) == pytest.approx(
        BOARD["scrub"].rm.mean, rel=1e-5
    )


def test_text_of_rows_is_escaped_in_every_table(lines):
    for html in (front.board_table(BOARD), front.heat_map(lines, TWO)):
        assert "<b>no</b>" not in html and "&lt;b&gt;no&lt;/b&gt; &amp; none" in html


def test_a_product_that_is_more_than_weights_stands_beside_the_name():
    board = board_of(rows("sisa", between(0.1), product="an ensemble"))
    first = tree(front.board_table(board)).find(".//tbody")
    shown = [text(row[0]) for row in first]
    assert "sisa (an ensemble)" in shown and "fine_tune" in shown


def test_every_column_and_flag_is_explained():
    columns = front.board_columns(marks.marks()) + front.overall_columns(marks.marks(), 2)
    notes = front.notes(columns, front.SAID)
    for column in columns:
        assert len(column.title) > 1 and column.tip
        assert f"<dt>{column.title}</dt>" in notes
    assert all(f"flag: {flag}" in notes for flag in score.FLAGS)
    assert 'data-tip="utility is below one half">collapsed</span>' in front.flags(["collapsed"])
    assert front.flags([]) == "—"


def test_columns_that_a_reader_needs_first_come_first():
    shown = [c.title for c in front.board_columns({}) if not c.more]
    assert shown == ["Row", "Retrain-Match", "Rank", "Tier", "Time / retraining", "Needs", "Flags"]
    folded = [c.more for c in front.board_columns({})]
    assert folded == sorted(folded)


# ------------------------------------------------------------------ the heat map


def test_the_heat_map_has_a_text_for_every_cell(lines):
    table = tree(front.heat_map(lines, TWO)).find(".//table")
    found = {}
    for row in table.iterfind(".//tbody/tr"):
        if row.get("class") == "group":
            continue
        name = text(row[0])
        for cell in row.iterfind("td"):
            hidden = cell.find("span[@class='visually-hidden']")
            assert hidden is not None and hidden.text.strip()
            assert name == "ssd" or cell.get("data-tip", name).startswith(name)
        found[name] = [text(cell) for cell in row.iterfind("td")]
    assert found.keys() == {line.name for line in lines} | {"ssd"}  # no result anywhere
    assert front.interval(TWO["toy"]["scrub"].rm) in found["scrub"][2]
    assert "is not run there" in found["lora"][3] and "analogue" in found["lora"][2]
    headings = [text(cell).replace("\u200b", "") for cell in table.iterfind("thead/tr/th")]
    assert headings == ["Row", "points", "mean", "toy", "two"]


def test_a_mean_over_some_of_the_seeds_says_so_in_the_heat_map():
    few = [r for r in rows("lora", between(0.3)) if r.seed != 2]
    board = board_of(rows("scrub", between(0.1)), rows("amnesiac", between(0.2)), few)
    drawn = str(front.heat_map(overall.overall({"x": board}), {"x": board}))
    assert drawn.count("partial, not compared: ") == 2  # in the cell and in its tip


def test_a_line_stands_where_the_overall_tier_changes(lines):
    table = tree(front.heat_map(lines, TWO)).find(".//table")
    marked = {text(r[0]) for r in table.iterfind(".//tr") if r.get("class") == "new-tier"}
    last, wanted = None, set()
    for line in (line for line in lines if line.kind == "strategy"):
        wanted |= {line.name} if line.tier != last else set()
        last = line.tier
    assert marked == wanted and len(wanted) >= 2


def test_colours_are_readable_at_every_score():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    shades = []
    for value in range(101):
        back, ink = front._colours(value)
        ink = {"#000": "#000000", "#fff": "#ffffff"}[ink]
        high, low = sorted((luminance(back), luminance(ink)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5
        shades.append(luminance(back))
    assert shades == sorted(shades, reverse=True)  # darker is closer to retraining


# ------------------------------------------------------------------ in words


def line(name: str, mean: float, on: int = 2, above: bool = True) -> overall.Overall:
    return overall.Overall(
        name,
        "strategy",
        "Data",
        score.Interval(mean, mean - 1, mean + 1, 5),
        dict(list({"x": BOARD["scrub"], "y": BOARD["scrub"]}.items())[:on]),
        above_control=above,
    )


def test_the_advice_splits_by_what_was_kept_and_names_needs(lines):
    said = advice.advice([line("amnesiac", 90), line("layer_freezing", 80), line("scrub", 70)])
    kept, start, nothing = said
    assert kept.startswith(
        "If training kept records of itself (a log of its updates, for example), try amnesiac "
        "(mean Retrain-Match 90"
    )
    assert "needs retain set, update log and labels" in kept
    assert start.startswith("If the weights that it started from were saved, try layer_freezing (")
    only = "If only the trained model and the data that may stay are left"
    assert nothing.startswith(f"{only}, try scrub (")
    first, *rest = advice.advice(lines)
    assert first.startswith("If training kept records of itself") and "try amnesiac (" in first
    assert any("try scrub (" in said for said in rest)


def test_what_needs_more_is_advised_only_if_it_is_better():
    said = " ".join(
        advice.advice([line("amnesiac", 75), line("layer_freezing", 80), line("scrub", 77)])
    )
    assert said.startswith("If the weights that it started from were saved, try layer_freezing")
    assert "amnesiac" not in said and "try scrub" in said


def test_the_advice_says_what_the_seeds_do_not_tell_apart_and_where_a_control_is_as_good():
    board = board_of(rows("amnesiac", between(0.1)), rows("scrub", between(0.1)))
    far = board_of(rows("amnesiac", between(0.1)), rows("scrub", between(0.4)))
    said = lambda of: " ".join(advice.advice(overall.overall({"x": of, "y": of})))
    alike = "the seeds do not tell it apart from scrub, which needs less"
    assert alike in said(board) or board["scrub"].rm.mean > board["amnesiac"].rm.mean
    assert "amnesiac" in said(far) and alike not in said(far)
    weak = replace(BOARD["scrub"], flags=("not better than control",))
    line_ = replace(
        line("scrub", 80, on=2), on={"x": weak, "y": BOARD["scrub"], "z": BOARD["scrub"]}
    )
    assert 'flagged "not better than control" on 1 of 3' in advice.advice([line_])[0]


def test_nobody_is_advised_who_is_not_above_the_controls_in_the_mean_over_every_workload():
    few = [
        line("amnesiac", 90, on=1),
        line("scrub", 80, above=False),
        line("lora", 10, above=False),
    ]
    assert advice.advice(few) == advice.advice([]) == [advice.NOBODY]


def test_how_close_to_retraining_the_best_come_is_said_first():
    weak = board_of(rows("scrub", between(0.9)), rows("amnesiac", between(0.95)))
    boards = {"toy": BOARD, "hard": weak}
    said = advice.closeness(overall.overall(boards), boards)
    retrained = {x.name: x for x in overall.overall(boards)}["retrained"].rm.mean
    assert said.startswith(
        f"A retrained model scores {retrained:.0f}; of the strategies that run on"
    )
    assert "lora" not in said, "it runs on one of two"
    assert said.endswith(
        "On hard, no strategy is significantly better than the best cheap control."
    )
    assert "no strategy" not in advice.closeness(overall.overall({"toy": BOARD}), {"toy": BOARD})
    assert advice.closeness([], {}) == ""


def test_retraining_that_is_stopped_early_is_compared_on_each_workload():
    strong = rows("partial_retrain", between(0.15), "control")
    board = board_of(rows("scrub", between(0.1)), rows("lora", between(0.4)), strong)
    assert advice.early({"x": board}).endswith("Strategies with a higher mean: 1 of 2 on x.")
    assert advice.early(TWO) == ""  # no such control


def test_certainty_counts_pairs_and_says_what_the_seeds_can_tell():
    said = advice.certainty(TWO)
    told = sum(b.pairs_resolved[0] for b in TWO.values())
    pairs = sum(b.pairs_resolved[1] for b in TWO.values())
    assert f"tell {told} of {pairs} pairs of strategies apart" in said
    assert f"{overall.resolution(BOARD).smallest:.0f} on toy (8 seeds)" in said


def test_under_a_board_stands_what_its_seeds_carry():
    said, found = advice.carried(BOARD), overall.resolution(BOARD)
    assert f"differ by {found.smallest:.1f} points" in said
    assert f"significant with {found.seeds_for} seeds" in said
    assert "hold together" in said
    assert f"May be first: {score.listed(s.name for s in BOARD.leaders)}." in said
    assert "higher mean" not in said
    first = BOARD.of("strategy")[0]
    shaken = [replace(s, rank=(2, 2)) if s is first else s for s in BOARD.standings]
    shaken = [replace(s, rank=(1, 2)) if s.name == "scrub" else s for s in shaken]
    told = advice.carried(replace(BOARD, standings=tuple(shaken)))
    higher = f"{first.name}, with a higher mean than one of them, may not"
    assert f"{higher}: another strategy is significantly better." in told
    shaken = [
        replace(s, rank=(1, 2), flags=("not better than control",)) if s.name == first.name else s
        for s in shaken
    ]
    told = advice.carried(replace(BOARD, standings=tuple(shaken)))
    assert f"{higher}: not significantly better than the best cheap control." in told
    one = board_of(rows("scrub", between(0.1)))
    assert "too few seeds or strategies" in advice.carried(one)
    assert advice.certainty({"x": one}).startswith("There are too few training seeds or strategies")


def test_the_front_page_uses_every_number_made_for_it(tmp_path):
    from erasus_nb import sphinx_runs

    page = (ROOT / "intro.md").read_text("utf-8")
    used = set(re.findall(r"{{ (\w+) }}", page))
    assert {"answer", "advice", "certainty", "heat_map", "overall_table"} <= used
    made = sphinx_runs.substitutions(ROOT)
    assert used <= made.keys()
    assert made["heat_map"].count("<td") > 100 and fabricate.STRATEGIES.keys() <= set(
        re.findall(r"<code>(\w+)</code>", made["heat_map"])
    )


def test_where_no_workload_passes_its_gates_the_front_page_says_so():
    from erasus_nb import sphinx_runs

    made = sphinx_runs._overall_facts({"toy": replace(BOARD, gates_passed=False)}, ROOT)
    assert made["answer"] == sphinx_runs.NOT_RANKED
    assert sphinx_runs._overall_facts({}, ROOT) == {}


def test_boards_of_other_requests_are_named_as_such():
    from erasus_nb import sphinx_runs

    facts = {"workload": "toy", "request_kind": "concept"}
    other = replace(BOARD, workload="toy-concept", facts=facts)
    said = sphinx_runs._other_requests({"toy": BOARD, "toy-concept": other})
    assert said.startswith("`toy` has another request, `concept`, with 3 strategies: ")
    assert sphinx_runs._other_requests({"toy": BOARD}) == ""
