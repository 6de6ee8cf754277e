"""The bench: what becomes a row, what is kept, and what happens when something is wrong."""

from __future__ import annotations

import copy
import linecache
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from erasus_nb import controls, measuring, provenance, records, score, workloads
from erasus_nb.benchmark import Bench, Cache
from erasus_nb.keys import live_code
from erasus_nb.locks import shared
from erasus_nb.profiles import PROFILES
from erasus_nb.strategy import MissingRecord, Unlearned, strategy
from erasus_nb.training import clone, same_weights

ON = dict(category="Test", cite="", on=("synthetic",))


@strategy(**ON, reads=("forget",))
def honest_small_step(model, forget, retain, task, *, lr=0.05, seed=0):
    """One ascent step: runs everywhere, changes every weight a little."""
    student = copy.deepcopy(model)
    task.loss(student, forget.all()).mean().backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += lr * parameter.grad
            parameter.grad = None
    return Unlearned(student, {"forget": [1.0]}, {"steps": 1})


@strategy(**ON, reads=())
def does_nothing(model, forget, retain, task, *, seed=0):
    return Unlearned(copy.deepcopy(model))


@strategy(**ON, reads=())
def raises(model, forget, retain, task, *, seed=0):
    raise KeyError("no such layer")


@strategy(**ON, reads=())
def makes_nan(model, forget, retain, task, *, seed=0):
    student = copy.deepcopy(model)
    with torch.no_grad():
        next(student.parameters()).fill_(float("nan"))
    return Unlearned(student)


@strategy(**ON, reads=())
def reports_nan_loss(model, forget, retain, task, *, seed=0):
    return Unlearned(copy.deepcopy(model), {"forget": [0.1, float("inf")]})


@strategy(**ON, reads=(), product="a smaller network")
def answers_five_classes(model, forget, retain, task, *, seed=0):
    return Unlearned(torch.nn.Linear(32, 5))


@strategy(**ON, reads=(), product="another network")
def takes_other_inputs(model, forget, retain, task, *, seed=0):
    return Unlearned(torch.nn.Linear(7, 10))


@strategy(**ON, reads=())
def has_other_weights(model, forget, retain, task, *, seed=0):
    return Unlearned(torch.nn.Linear(32, 10))


@strategy(**ON, reads=())
def returns_a_bare_model(model, forget, retain, task, *, seed=0):
    return copy.deepcopy(model)


@strategy(**ON, reads=())
def edits_its_input(model, forget, retain, task, *, seed=0):
    with torch.no_grad():
        next(model.parameters()).zero_()
    return Unlearned(model)


@strategy(**ON, reads=("forget",))
def peeks_at_retain(model, forget, retain, task, *, seed=0):
    task.loss(model, retain.all())
    return Unlearned(copy.deepcopy(model))


@strategy(**ON, reads=())
def has_one_modality(model, forget, retain, task, *, seed=0):
    task.modalities(model)


@strategy(**ON, reads=("update log",))
def wants_a_log(model, forget, retain, task, *, seed=0):
    return Unlearned(copy.deepcopy(model), info={"steps": len(task.update_log())})


@strategy(**ON, reads=())
def reports_words(model, forget, retain, task, *, seed=0):
    return Unlearned(copy.deepcopy(model), {"forget": ["high"]})


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def smoke(cache, **more) -> Bench:
    return Bench("synthetic", "smoke", **{"cache": cache, "out": None, **more})


def reason_of(cache, function) -> tuple[str, str]:
    rows = smoke(cache, seeds=(0,)).run(function, keep=False)
    return rows[0].status, rows[0].reason


# ------------------------------------------------------------------ rows


def test_a_finished_row_holds_what_was_measured_and_what_it_cost(cache):
    bench = smoke(cache)
    row = bench.run(honest_small_step, keep=False)[1]
    assert row.status == "ok" and row.seed == 1 and row.weights_changed
    assert {"C1", "C2", "C3", "C4", "forget_loss", "lira_auc"} <= row.metrics.keys()
    assert row.divergence_to_retrained.keys() == {"0", "1"}
    # One forward and one backward pass of every forget example, and none of the retain set.
    assert row.cost.example_passes == 2 * 64
    assert row.cost.examples_read == {"forget": 64, "retain": 0}
    assert row.settings == {"lr": 0.05} and row.info == {"steps": 1}


def test_the_retrained_model_is_at_no_distance_from_itself(cache):
    rows = smoke(cache).references().rows
    for row in rows:
        if row.kind == "retrained":
            assert row.divergence_to_retrained[str(row.seed)] == pytest.approx(0, abs=1e-9)
            assert all(
                v > 0.01 for k, v in row.divergence_to_retrained.items() if k != str(row.seed)
            )


@pytest.mark.parametrize(
    "function, status, words",
    [
        (raises, "error", "KeyError: 'no such layer'"),
        (makes_nan, "diverged", "NaN"),
        (reports_nan_loss, "diverged", "forget loss"),
        (answers_five_classes, "error", "(5,), not (10,)"),
        (takes_other_inputs, "error", "cannot be measured"),
        (has_other_weights, "error", "product is more than weights says so in its mark"),
        (returns_a_bare_model, "error", "Unlearned"),
        (edits_its_input, "error", "changed the model it was given"),
        (peeks_at_retain, "error", "does not declare"),
        (has_one_modality, "not_applicable", "modality"),
        (reports_words, "error", "could not convert"),
    ],
)
def test_what_goes_wrong_is_a_row_with_its_reason(cache, function, status, words):
    got, reason = reason_of(cache, function)
    assert got == status
    assert words in reason


@strategy(category="Test", cite="", reads=("forget",), needs=("denoiser",))
def meant_for_denoisers(model, forget, retain, task, *, seed=0):
    """Calls only hooks that exist everywhere, so that none of them refuses."""
    forget.all()
    return Unlearned(clone(model))


def test_what_runs_and_means_nothing_here_is_no_result(cache):
    status, reason = reason_of(cache, meant_for_denoisers)
    assert status == "not_applicable"
    assert reason == "it needs a network that takes noise out of an image, step by step"


def test_logs_are_recorded_for_several_seeds_at_once_and_forgotten(cache, monkeypatch):
    made = []

    def record(load, finals):
        made.append(list(finals))
        return {seed: f"log of {seed}" for seed in finals}

    monkeypatch.setattr(provenance, "update_logs", record)
    monkeypatch.setattr(provenance, "logs_at_once", lambda load: 2)
    bench = smoke(cache, seeds=(0, 1, 2))
    assert [bench.update_log(seed) for seed in (0, 1, 2)] == ["log of 0", "log of 1", "log of 2"]
    assert made == [[0, 1], [2]]
    assert list(bench._logs) == [2]


def test_a_record_that_cannot_be_made_is_a_row_with_its_reason(cache, monkeypatch):
    def lost(*arguments):
        raise MissingRecord("the log was not kept")

    monkeypatch.setattr(provenance, "update_logs", lost)
    assert reason_of(cache, wants_a_log) == ("error", "MissingRecord: the log was not kept")


def test_a_failing_strategy_does_not_stop_the_next_one(cache, tmp_path):
    bench = smoke(cache, out=tmp_path)
    bench.run(raises)
    bench.run(honest_small_step)
    rows = records.read(tmp_path / "smoke" / "synthetic" / "test.json").rows
    assert [(r.strategy, r.status) for r in rows] == [
        ("raises", "error"),
        ("raises", "error"),
        ("honest_small_step", "ok"),
        ("honest_small_step", "ok"),
    ]


def test_an_unmarked_function_and_an_unknown_setting_are_refused(cache):
    bench = smoke(cache)
    with pytest.raises(ValueError, match="not marked"):
        bench.run(lambda model, forget, retain, task, *, seed=0: None)
    with pytest.raises(ValueError, match="no setting 'lrate'; it has lr"):
        bench.run(honest_small_step, settings={"lrate": 1})


# ------------------------------------------------------------------ planted faults


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A board of the laptop workload with four impostors entered as strategies.

    At the profile's own seeds: one network in a few guesses a good part of the test data right.
    """
    bench = Bench("synthetic", "laptop", out=None, cache=tmp_path_factory.mktemp("c"))
    document = bench.references()
    rows = []
    impostors = {
        "no_op": does_nothing,
        "blank": controls.random_init,
        "wreck": controls.ascent_to_destruction,
    }
    for name, function in impostors.items():
        for row in bench.run(function, settings={}, keep=False):
            rows.append(
                row.model_copy(update={"strategy": name, "kind": "strategy", "category": "Test"})
            )
    # The copy of a retrained model: seed s hands in what retraining gave at seed s.
    for row in document.rows:
        if row.kind == "retrained":
            rows.append(
                row.model_copy(update={"strategy": "copy", "kind": "strategy", "category": "Test"})
            )
    mine = document.model_copy(update={"category": "test", "rows": rows})
    return document, score.board([document, mine])


def test_the_gates_of_synthetic_pass_at_laptop_sizes(planted):
    document, board = planted
    failed = [(g.name, g.value) for g in document.gates if not g.passed]
    assert board.gates_passed, failed


def test_a_no_op_is_recognised(planted):
    standing = planted[1]["no_op"]
    assert "no-op" in standing.flags and standing.rm.mean <= 5


def test_a_random_network_is_recognised(planted):
    standing = planted[1]["blank"]
    assert "collapsed" in standing.flags and standing.rm.mean <= 10


def test_a_destroyed_model_is_recognised(planted):
    standing = planted[1]["wreck"]
    assert "collapsed" in standing.flags and standing.rm.mean < 40
    assert standing.metrics["forget_accuracy"].mean < 0.1, (
        "the lowest-forget-accuracy rule loves it"
    )


def test_a_copy_of_the_retrained_model_scores_as_retraining_does(planted):
    board = planted[1]
    assert board["copy"].rm.mean >= 90
    assert board["copy"].rm.mean == pytest.approx(board["retrained"].rm.mean)
    assert board["copy"].flags == ()
    assert board.standings[0].name in ("copy", "retrained")


# ------------------------------------------------------------------ keys and resuming


def test_finished_rows_are_kept_and_changed_settings_rerun_alone(cache, tmp_path):
    smoke(cache, out=tmp_path).run(honest_small_step)
    path = tmp_path / "smoke" / "synthetic" / "test.json"
    first = records.read(path).rows

    again = smoke(cache, out=tmp_path)
    again.run(honest_small_step)
    assert [r.cost.seconds for r in records.read(path).rows] == [r.cost.seconds for r in first]

    smoke(cache, out=tmp_path).run(honest_small_step, settings={"lr": 0.1})
    assert [r.key for r in records.read(path).rows] != [r.key for r in first]


def test_a_diverged_retrained_model_leaves_the_other_rows_finished(cache, tmp_path):
    bench = smoke(cache, out=tmp_path)
    broken = {name: value * math.nan for name, value in bench.retrained()[1].items()}
    bench.retrained()[1] = broken
    rows = {r.seed: r for r in bench.references().rows if r.kind == "retrained"}
    assert (rows[0].status, rows[1].status) == ("ok", "diverged")
    before = bench.run(honest_small_step)
    assert all(row.divergence_to_retrained.keys() == {"0"} for row in before)
    again = bench.run(honest_small_step)
    assert [row.cost.seconds for row in again] == [row.cost.seconds for row in before]


def test_resume_off_measures_again(cache, tmp_path):
    smoke(cache, out=tmp_path).run(honest_small_step)
    path = tmp_path / "smoke" / "synthetic" / "test.json"
    before = records.read(path).rows[0].cost.seconds
    smoke(cache, out=tmp_path, resume=False).run(honest_small_step)
    assert records.read(path).rows[0].cost.seconds != before


def test_a_run_with_fewer_seeds_keeps_the_rows_of_a_run_with_more(cache, tmp_path):
    smoke(cache, out=tmp_path).run(honest_small_step)
    smoke(cache, out=tmp_path, seeds=(0,)).run(honest_small_step)
    rows = records.read(tmp_path / "smoke" / "synthetic" / "test.json").rows
    assert {r.seed for r in rows} == {0, 1}
    assert all(r.divergence_to_retrained.keys() == {"0", "1"} for r in rows)


def test_more_seeds_measure_old_rows_against_the_new_retrained_models(cache, tmp_path):
    smoke(cache, out=tmp_path, seeds=(0,)).run(honest_small_step)
    smoke(cache, out=tmp_path).run(honest_small_step)
    rows = records.read(tmp_path / "smoke" / "synthetic" / "test.json").rows
    assert all(r.divergence_to_retrained.keys() == {"0", "1"} for r in rows)


def _first():
    return 1


def _second():
    return _first() + 1


def _other():
    return 2


@strategy(**ON, reads=())
def uses_helpers(model, forget, retain, task, *, seed=0):
    return _second()


@pytest.mark.parametrize("helper, counts", [("_first", True), ("_second", True), ("_other", False)])
def test_the_code_behind_a_row_follows_the_functions_that_are_used(monkeypatch, helper, counts):
    before = live_code(uses_helpers)
    assert live_code(uses_helpers) == before

    def changed():
        return 3

    monkeypatch.setitem(globals(), helper, changed)
    assert (live_code(uses_helpers) != before) == counts


CELLS = """
class Bag:
    "Holds a number."
    size: int = 3

    def double(self):
        return first() * 2 * self.size


def first():
    return 1


@strategy(category="Test", cite="", reads=())
def uses_a_class(model, forget, retain, task, *, seed=0):
    return Bag().double()
"""


@pytest.mark.parametrize(
    "old, new, counts",
    [
        ("", "", False),
        ("Holds a number", "Holds another", False),
        ("size: int = 3", "size: int = 4", True),
        ("* 2 *", "* 3 *", True),
        ("return 1", "return 5", True),
    ],
)
def test_a_class_counts_by_its_methods_and_fields_even_without_a_source_file(old, new, counts):
    # As a kernel runs cells: their module has no file, so inspect finds no class source.
    def code(text, file):
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        scope = {"__name__": "cells_of_a_kernel", "strategy": strategy}
        exec(compile(text, file, "exec"), scope)
        try:
            return live_code(scope["uses_a_class"])
        finally:
            del linecache.cache[file]

    before, after = code(CELLS, "<cell 1>"), code(CELLS.replace(old, new), "<cell 2>")
    assert (before != after) == counts


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[3])
from test_benchmark import honest_small_step
from erasus_nb import benchmark
bench = benchmark.Bench("synthetic", "smoke", range(40), cache=sys.argv[1], out=sys.argv[2])
bench.originals(), bench.retrained()
print("ready", flush=True)
bench.run(honest_small_step)
"""


def test_a_killed_run_loses_no_finished_row(tmp_path):
    arguments = [tmp_path / "cache", tmp_path / "out", Path(__file__).parent]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    path = tmp_path / "out" / "smoke" / "synthetic" / "test.json"
    deadline = time.monotonic() + 60
    while not (path.is_file() and len(records.read(path).rows) >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survived = {r.seed: r.cost.seconds for r in records.read(path).rows}
    assert len(survived) >= 3

    bench = Bench("synthetic", "smoke", range(40), cache=tmp_path / "cache", out=tmp_path / "out")
    bench.run(honest_small_step)
    after = {r.seed: r.cost.seconds for r in records.read(path).rows}
    assert len(after) == 40
    assert {seed: after[seed] for seed in survived} == survived


SIDE_BY_SIDE = """
import sys
sys.path.insert(0, sys.argv[3])
import test_benchmark
from erasus_nb import benchmark
bench = benchmark.Bench("synthetic", "smoke", range(6), cache=sys.argv[1], out=sys.argv[2])
bench.references()
bench.run(getattr(test_benchmark, sys.argv[4]))
"""


def test_two_runs_side_by_side_keep_each_others_rows(tmp_path):
    arguments = [str(tmp_path / "cache"), str(tmp_path / "out"), str(Path(__file__).parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pair = [
        subprocess.Popen([sys.executable, "-c", SIDE_BY_SIDE, *arguments, name], env=environment)
        for name in ("honest_small_step", "does_nothing")
    ]
    assert [process.wait(120) for process in pair] == [0, 0]
    folder = tmp_path / "out" / "smoke" / "synthetic"
    rows = records.read(folder / "test.json").rows
    assert sorted({(r.strategy, r.seed) for r in rows}) == sorted(
        (name, seed) for name in ("honest_small_step", "does_nothing") for seed in range(6)
    )
    references = records.read(folder / "reference.json").rows
    assert len(references) == 6 * (2 + len(controls.CONTROLS))
    assert not list(folder.glob("*.tmp")), "no half-written file is left"


def test_what_another_process_holds_comes_last(tmp_path):
    lock = lambda name: FileLock(tmp_path / f"{name}.lock")
    held, order = lock("b"), []
    held.acquire()
    for name in shared("abc", lock):
        order.append(name)
        if name == "c":
            held.release()  # the other process is done with it
    assert order == ["a", "c", "b"]


def test_an_item_is_locked_while_it_is_handed_out_and_free_afterwards(tmp_path):
    lock = lambda name: FileLock(tmp_path / f"{name}.lock")
    for name in shared("ab", lock):
        with pytest.raises(Timeout):
            lock(name).acquire(blocking=False)
    for name in "ab":
        with lock(name).acquire(blocking=False):
            pass


SHARING = """
import sys, time
from pathlib import Path
import torch
from erasus_nb.benchmark import Cache
cache = Cache(Path(sys.argv[1]))
def make(place):
    print(place, flush=True)
    time.sleep(0.3)
    return {"x": torch.tensor([float(place)])}
print("ready", flush=True)
sys.stdin.readline()
found = cache.each([f"key {k}" for k in range(6)], make)
assert [int(f["x"]) for f in found] == list(range(6))
"""


def test_two_processes_share_out_what_both_need(tmp_path):
    start = lambda: subprocess.Popen(
        [sys.executable, "-c", SHARING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pair = [start(), start()]
    assert [process.stdout.readline() for process in pair] == ["ready\n"] * 2
    for process in pair:
        process.stdin.write("go\n")
        process.stdin.flush()
    made = [process.communicate(timeout=60)[0].split() for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert sorted(made[0] + made[1]) == list("012345"), "each is made once"
    assert all(made), "neither waits for the other to make them all"


def test_an_old_row_in_memory_does_not_undo_what_another_process_measured(cache, tmp_path):
    smoke(cache, out=tmp_path).run(honest_small_step)
    path = tmp_path / "smoke" / "synthetic" / "test.json"
    one, other = smoke(cache, out=tmp_path), smoke(cache, out=tmp_path)
    one.run(does_nothing)  # has read the rows of the small step
    other.run(honest_small_step, settings={"lr": 0.1})
    one.run(makes_nan)
    settings = [
        row.settings["lr"] for row in records.read(path).rows if row.strategy == "honest_small_step"
    ]
    assert settings == [0.1, 0.1]


# ------------------------------------------------------------------ bad input


def test_an_empty_forget_set_is_refused_before_any_work():
    with pytest.raises(ValueError, match="at least one each"):
        replace(PROFILES["smoke"]["synthetic"], concept=0, canaries=0)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(workload="mnist"), "there is no workload 'mnist'; there are synthetic, digits"),
        (dict(workload="synthetic", profile="huge"), "there is no profile 'huge'; there are smoke"),
        (dict(workload="synthetic", request="all"), "one of standard, most, random, least"),
        (dict(workload="synthetic", seeds=()), "at least one training seed"),
        (dict(workload="synthetic", folds=(5,)), "folds are 1 to 4"),
    ],
)
def test_unknown_names_are_refused_with_what_there_is(arguments, words):
    with pytest.raises(ValueError, match=words):
        Bench(**{"profile": "smoke", "out": None, "cache": "", **arguments})


def test_one_seed_gives_a_board_without_intervals(cache):
    bench = smoke(cache, seeds=(0,))
    document = bench.references()
    mine = document.model_copy(
        update={"category": "test", "rows": bench.run(honest_small_step, keep=False)}
    )
    standing = score.board([document, mine])["honest_small_step"]
    assert standing.rm.n == 1 and standing.rm.low == standing.rm.mean == standing.rm.high


def test_a_control_of_another_time_stays_in_its_file_and_is_on_no_board(cache, tmp_path):
    document = smoke(cache, seeds=(0,), out=tmp_path).references()
    path = records.path_of("smoke", "synthetic", "reference", tmp_path)
    former = document.rows[-1].model_copy(update={"strategy": "former_control"})
    kept = records.read(path)
    records.write(path, kept.model_copy(update={"rows": [*kept.rows, former]}))
    again = smoke(cache, seeds=(0,), out=tmp_path).references()
    assert [row.strategy for row in again.rows] == [row.strategy for row in document.rows]
    assert former in records.read(path).rows


def test_a_results_folder_that_cannot_be_written_stops_before_any_work(cache, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    bench = smoke(cache, out=tmp_path / "results")
    with pytest.raises(records.RecordError, match="cannot be written"):
        bench.references()


def test_a_truncated_result_file_is_named_and_refused(cache, tmp_path):
    bench = smoke(cache, out=tmp_path)
    bench.run(honest_small_step)
    path = tmp_path / "smoke" / "synthetic" / "test.json"
    path.write_text(path.read_text()[:-200])
    with pytest.raises(records.RecordError, match="test.json"):
        smoke(cache, out=tmp_path).run(honest_small_step)


def test_an_unwritable_cache_is_named_and_the_run_goes_on(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be written"):
        bench = Bench("synthetic", "smoke", (0,), cache=tmp_path / "cache", out=None)
    assert bench.run(does_nothing, keep=False)[0].status == "ok"


@pytest.mark.parametrize("damage", [b"", b"not a safetensors file", None])
def test_a_damaged_cache_file_is_named_and_made_anew(tmp_path, damage):
    made = {"weights": torch.arange(3.0)}
    Cache(tmp_path).one("key", lambda: made)
    path = tmp_path / "key.safetensors"
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    with pytest.warns(UserWarning, match="key.safetensors"):
        found = Cache(tmp_path).one("key", lambda: {"weights": torch.zeros(3)})
    assert torch.equal(found["weights"], torch.zeros(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Cache(tmp_path).one("key", lambda: pytest.fail("it was repaired"))
    assert torch.equal(again["weights"], torch.zeros(3))


def test_a_cache_file_under_another_key_is_not_believed(tmp_path):
    Cache(tmp_path).one("a", lambda: {"x": torch.ones(1)})
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    with pytest.warns(UserWarning, match="another key"):
        found = Cache(tmp_path).one("b", lambda: {"x": torch.zeros(1)})
    assert found["x"].item() == 0


def test_a_second_bench_trains_nothing(cache, monkeypatch):
    smoke(cache).references()
    monkeypatch.setattr(
        workloads.classifier.ClassifierWorkload,
        "train",
        lambda *a, **k: pytest.fail("trained again"),
    )
    smoke(cache).originals()
    smoke(cache).retrained()


# ------------------------------------------------------------------ relearning


def test_the_model_that_was_measured_is_the_one_that_is_attacked(cache, monkeypatch):
    monkeypatch.setattr(measuring, "ATTACKED", 1)
    bench = smoke(cache, seeds=(0, 1))
    bench.run(honest_small_step, keep=False)
    bench.run(honest_small_step, settings={"lr": 0.5}, keep=False)  # other rows
    again = {seed: bench.model_of(honest_small_step, seed) for seed in (0, 1)}
    assert again[0] is bench.model_of(honest_small_step, 0), "kept"
    assert again[1] is not bench.model_of(honest_small_step, 1), "made again"
    fresh = smoke(cache, seeds=(0, 1)).model_of(honest_small_step, 0)
    assert same_weights(again[0].state_dict(), fresh.state_dict())


def test_relearning_starts_where_the_models_are_and_moves_the_original_nowhere(cache):
    bench = smoke(cache, seeds=(0,))
    before = {k: v.clone() for k, v in bench.originals()[0].items()}
    curves = bench.relearn([honest_small_step], (0,), steps=(0, 3))
    assert set(curves) == {"recall of the other canaries", "concept accuracy, unseen"}
    line = curves["concept accuracy, unseen"]
    assert set(line) == {"original", "retrained", "honest_small_step"}
    measured = bench.references().rows
    original = next(r for r in measured if r.strategy == "original")
    assert line["original"][0] == [original.metrics["C2"].value]
    assert all(torch.equal(before[k], v) for k, v in bench.originals()[0].items())


def test_pages_share_the_attack_on_the_references(tmp_path, monkeypatch):
    attacked, attack = [], Bench._attack

    def counted(self, model, *rest):
        attacked.append(model)
        return attack(self, model, *rest)

    monkeypatch.setattr(Bench, "_attack", counted)
    curves = [
        smoke(tmp_path, seeds=(0,)).relearn([honest_small_step], (0,), steps=(0, 3))
        for _ in range(2)
    ]
    assert curves[0] == curves[1]
    assert len(attacked) == 3 + 1, "another page attacks its own strategies alone"
    smoke(tmp_path, seeds=(0,)).relearn([], (0,), steps=(0, 2))
    assert len(attacked) == 4 + 2, "another attack is another measurement"


def test_an_attack_is_the_same_twice_where_its_loss_draws(cache):
    def attacked():
        bench = smoke(cache, seeds=(0,))
        task = bench.load.task

        def drawing(seed):
            made = task(seed)
            loss = made.loss
            made.loss = lambda model, batch: loss(model, batch) * torch.rand(len(batch))
            return made

        bench.load.task = drawing
        model = bench.load.load(bench.originals()[0])
        *_, last = bench._attack(model, bench.asked.forget, 0, (0, 3))
        return {name: value.clone() for name, value in last.state_dict().items()}

    first = attacked()
    torch.rand(5)
    assert same_weights(first, attacked())


def test_an_attack_takes_the_steps_of_its_workload(cache):
    bench = smoke(cache, seeds=(0,))
    bench.load.attack_steps = (0, 2)
    [line] = {tuple(c["original"]) for c in bench.relearn([], (0,)).values()}
    assert line == (0, 2)


# ------------------------------------------------------------------ memory

RISE = """
import torch
from erasus_nb.clock import PeakMemory
freed = [torch.zeros(2**18) for _ in range(200)]  # a MiB each
del freed
memory = PeakMemory("cpu")
taken = [torch.zeros(2**18) for _ in range(100)]
print(memory.rise_mb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_memory_that_was_free_before_counts_as_taken():
    kept = {"MALLOC_TRIM_THRESHOLD_": str(10**9), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
    said = subprocess.run(
        [sys.executable, "-c", RISE],
        env={**os.environ, **kept},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 95 < float(said.stdout) < 130
