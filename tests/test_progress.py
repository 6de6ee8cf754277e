"""Progress lines: what is said, when, and that nothing of it stays in an executed notebook."""

import io
import threading
import time
from types import SimpleNamespace

import pytest

from erasus_nb import progress
from erasus_nb.progress import MARK, working


class Stderr(io.StringIO):
    encoding = "utf-8"


@pytest.fixture
def stderr(monkeypatch):
    """A stderr of its own, and seconds that are some ten times shorter."""
    monkeypatch.setattr(progress, "NOTICEABLE", 0.15)
    monkeypatch.setattr(progress, "EVERY", 0.6)
    # Not sys.stderr: pytest puts its own there between a fixture and its test.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=Stderr()))
    return progress.sys.stderr


def lines(stderr):
    """(text without its time, how it ends) of every line."""
    found = progress._LINE.findall(stderr.getvalue())
    assert "".join(found) == stderr.getvalue(), "every line carries the mark"
    return [(line[len(MARK) : -1].rsplit(",", 1)[0].strip(), line[-1]) for line in found]


def test_fast_work_says_nothing(stderr):
    with working("scrub on digits", total=3, unit="seed") as step:
        for seed in range(3):
            step(f"seed {seed}")
    assert stderr.getvalue() == ""


def test_one_line_stays_for_each_piece_that_takes_time(stderr):
    with working("scrub on digits", total=3, unit="seed") as step:
        for seed, seconds in enumerate((0.3, 0, 0.3)):
            step(f"seed {seed}")
            time.sleep(seconds)
    assert [text for text, end in lines(stderr) if end == "\n"] == [
        "scrub on digits: seed 1 of 3",
        "scrub on digits: seed 3 of 3",
    ]


def test_one_long_call_is_never_silent_for_long(stderr):
    with working("asking the model"):
        time.sleep(2.2)
        beats = lines(stderr)
    assert len(beats) >= 3 and set(beats) == {("asking the model", "\r")}


def test_many_fast_pieces_are_not_silent_either(stderr):
    with working("probes", total=40) as step:
        for number in range(40):
            step(number)
            time.sleep(0.04)
    assert len(lines(stderr)) >= 2
    assert lines(stderr)[-1][1] == "\n", "what comes after begins on a line of its own"


def test_the_inner_work_is_shown_and_then_the_outer_again(stderr):
    with working("outer"):
        time.sleep(0.3)
        with working("inner"):
            time.sleep(0.3)
        time.sleep(0.9)
    said = [text for text, _ in lines(stderr)]
    assert said[0] == "outer" and said[-1] == "outer"
    first, last = said.index("inner"), len(said) - said[::-1].index("inner")
    assert set(said[first:last]) == {"inner"}


def test_threads_do_not_disturb_each_other(stderr):
    def work(name):
        for _ in range(20):
            with working(name, total=2) as step:
                step("a")
                step("b")
                time.sleep(0.005)

    threads = [threading.Thread(target=work, args=(f"thread {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines(stderr)
    assert not progress._lines.works and progress._lines.ended is None


def test_a_failure_passes_and_ends_the_line(stderr):
    with pytest.raises(KeyError):
        with working("scrub"):
            time.sleep(0.4)
            raise KeyError("x")
    assert stderr.getvalue().rstrip(" \n").endswith("scrub: stopped")
    assert stderr.getvalue().endswith("\n")
    assert not progress._lines.works


@pytest.mark.parametrize("broken", [None, "closed", "ascii"])
def test_a_stderr_that_cannot_take_the_line_stops_no_work(stderr, broken):
    if broken == "closed":
        stderr.close()
    else:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii") if broken else None
        progress.sys.stderr = stream
    with working("модель\nwith a second line"):
        time.sleep(0.5)
    if broken == "ascii":
        assert b"[erasus] ?????? with a second line" in raw.getvalue()


def test_a_reader_of_a_notebook_gets_no_red_boxes(stderr, monkeypatch):
    """A kernel's streams; in a run of the whole book lines still go where `run` reads them."""

    class Out(io.StringIO):
        __module__ = "ipykernel.iostream"

    monkeypatch.delenv(progress.BATCH, raising=False)
    progress.sys.stdout = out = Out()
    with working("scrub"):
        time.sleep(4 * progress.NOTICEABLE)
    assert MARK in out.getvalue() and not stderr.getvalue()
    monkeypatch.setenv(progress.BATCH, "1")
    with working("scrub"):
        time.sleep(4 * progress.NOTICEABLE)
    assert MARK in stderr.getvalue()


def test_lines_are_taken_out_of_an_executed_notebook():
    stream = lambda text, name="stderr": {"output_type": "stream", "name": name, "text": text}
    beat, done = f"{MARK}scrub, 00:09\r", f"{MARK}scrub, 00:12\n"
    outputs = [
        stream(beat + beat),
        stream(["half a ", beat, done, "warning\n"]),
        stream(beat, "stdout"),
        stream(f"{beat}12 rows\n", "stdout"),
        stream("a warning\n"),
        {"output_type": "display_data", "data": {}, "metadata": {}},
    ]
    left = progress.without(outputs)
    rows = stream("12 rows\n", "stdout")
    assert left == [stream("half a warning\n"), rows, *outputs[4:]]
    assert outputs[1]["text"] == ["half a ", beat, done, "warning\n"]
    assert progress.latest(beat + done + "more") == "scrub, 00:12"
    assert progress.latest("nothing") is None
