"""Tuning: one budget for everybody, tuning seeds only, every trial kept."""

from __future__ import annotations

import json

import pytest

from erasus_nb import ROOT, benchmark, cells, tuning, workloads
from erasus_nb.__main__ import main
from erasus_nb.profiles import PROFILES, TUNING_SEEDS
from erasus_nb.strategy import BUDGET, settings_of
from erasus_nb.tuning import choose

CATEGORIES = ("gradient", "parameter", "data", "ensemble", "llm", "vlm")


def test_the_best_mean_wins_and_every_trial_is_kept():
    tried = [
        {"settings": {}, "rm": [10.0, 12.0], "reason": None},
        {"settings": {"lr": 1}, "rm": [50.0, 20.0], "reason": None},
        {"settings": {"lr": 2}, "rm": [30.0, 30.0], "reason": None},
    ]
    entry = choose(tried, (1000, 1001))
    assert entry["settings"] == {"lr": 1} and entry["trials"] == tried
    assert "3 settings" in entry["chosen_by"] and "1000 to 1001" in entry["chosen_by"]


def test_a_trial_that_failed_at_a_seed_cannot_win():
    tried = [
        {"settings": {}, "rm": [10.0, 12.0], "reason": None},
        {"settings": {"lr": 9}, "rm": [99.0], "reason": "diverged"},
    ]
    assert choose(tried, (1000, 1001))["settings"] == {}
    assert choose(tried[1:], (1000, 1001)) == {}


def test_a_trial_longer_than_retraining_cannot_win_against_a_shorter_one():
    slow = {"settings": {}, "rm": [90.0, 90.0], "time": 1.4, "reason": None}
    quick = {"settings": {"lr": 1}, "rm": [10.0, 10.0], "time": 0.2, "reason": None}
    assert choose([slow, quick], (1000, 1001))["settings"] == {"lr": 1}
    assert choose([slow], (1000, 1001))["settings"] == {}


def test_no_reported_seed_is_a_tuning_seed():
    most = max(sizes.seeds for profile in PROFILES.values() for sizes in profile.values())
    assert most <= min(TUNING_SEEDS)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_tuned_file_is_what_the_marks_declare(category):
    found = json.loads((ROOT / "notebooks" / "tuned" / f"{category}.json").read_text("utf-8"))
    strategies = cells.strategies(category)
    for workload, entries in found.items():
        for name, entry in entries.items():
            function = strategies[name]
            provides = workloads.load(workload, "smoke").provides
            assert function.facts.form_on(workload, provides)
            tried = [trial["settings"] for trial in entry["trials"]]
            declared = json.loads(json.dumps([{}, *tuning.budget_on(function, workload)]))
            assert tried == declared, f"tune {name} again"
            assert len(tried) <= BUDGET + 1
            whole = [
                t
                for t in entry["trials"]
                if len(t["rm"]) == len(workloads.load(workload, "smoke").tuning_seeds)
            ]
            whole = [t for t in whole if (t.get("time") or 0) <= 1] or whole
            assert entry["settings"] == max(whole, key=lambda t: sum(t["rm"]))["settings"]
            assert set(entry["settings"]) <= set(settings_of(function))


def test_a_row_says_who_chose_its_settings():
    found = json.loads((ROOT / "notebooks" / "tuned" / "gradient.json").read_text("utf-8"))
    function = cells.strategies("gradient")["scrub"]
    settings, by = benchmark.tuned_settings(function, "synthetic")
    assert settings == found["synthetic"]["scrub"]["settings"] and "tuning seeds" in by
    settings, by = benchmark.tuned_settings(function, "elsewhere")
    assert settings == {} and by == "the function's defaults"
    kept = benchmark.tuned("Gradient", "scrub", "synthetic")
    assert kept == found["synthetic"]["scrub"]
    assert benchmark.tuned("Yours", "scrub", "synthetic") == {}


def test_the_command_refuses_unknown_names_before_any_work(capsys, monkeypatch):
    monkeypatch.setattr("erasus_nb.tuning.tune", lambda *a: pytest.fail("work had begun"))
    assert main(["tune", "painting"]) == 2
    assert main(["tune", "gradient", "--workload", "mnist"]) == 2
    said = capsys.readouterr().err
    assert "no 'painting'; there are data" in said and "there are synthetic, digits" in said
