"""What published models and data are called, and whether what is read has changed."""

import json
import os
import subprocess
import sys

import pytest

from erasus_nb import ROOT, __main__, cells, records
from erasus_nb.workloads.identity import (
    LONGEST,
    board_slug,
    folder_stamp,
    model_type,
    split_request,
)


@pytest.mark.parametrize(
    ("data", "model", "slug"),
    [
        ("locuslab/TOFU", "open-unlearning/tofu_Llama-3.2-1B", "text-tofu-tofu-llama-3-2-1b"),
        ("locuslab/TOFU:forget05", "owner/model", "text-tofu-forget05-model"),
        ("данные", "модель-А", "text-данные-модель-а"),
        ("数据", "मलेसिया", "text-数据-मलेसिया"),
        ("a/CAFE\u0301", "a/café", "text-café-café"),
        ("...", "!!", "text"),
    ],
)
def test_names_of_any_script_stay_readable(data, model, slug):
    assert board_slug("text", data, model) == slug


def test_a_name_fits_any_file_system():
    name = board_slug("text", "数" * 80, "m" * 200)
    assert len(name.encode()) <= 2 * LONGEST + len("text--")
    assert name.startswith("text-数数") and name.endswith("-mm" + "m" * (LONGEST - 2))


def test_a_folder_given_by_a_dot_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "Target").mkdir()
    monkeypatch.chdir(tmp_path / "Target")
    assert board_slug("text", "TOFU", ".") == "text-tofu-target"


@pytest.mark.parametrize(
    ("config", "found"),
    [('{"model_type": "clip"}', "clip"), ('{"model_type": 1}', ""), ("[]", ""), ("{", "")],
)
def test_what_a_model_is_stands_in_its_configuration(tmp_path, config, found):
    assert model_type(str(tmp_path)) == model_type("owner/model") == ""
    (tmp_path / "config.json").write_text(config)
    assert model_type(str(tmp_path)) == found


def test_a_request_is_told_from_the_data():
    assert split_request("a/TOFU:forget05") == ("a/TOFU", "forget05")
    assert split_request("a/TOFU") == ("a/TOFU", "")
    assert split_request("C:data") == ("C:data", "")


def test_a_stamp_changes_with_any_file_below_a_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "weights"
    file.write_text("1234")
    os.utime(file, ns=(10, 10))
    first = folder_stamp(str(tmp_path))
    assert first == [["deep/weights", 4, 10]]
    assert folder_stamp(f"{tmp_path}:forget05") == first
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").write_text("")
    assert folder_stamp(str(tmp_path)) == first
    os.utime(file, ns=(10, 11))
    assert folder_stamp(str(tmp_path)) != first
    (tmp_path / "more").write_text("")
    assert len(folder_stamp(str(tmp_path))) == 2


def test_a_hub_ids_stamp_is_the_commit_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert folder_stamp("owner/model") == []
    for kind, commit in (("models--owner--model", "c1"), ("datasets--owner--data", "c2")):
        (tmp_path / kind / "refs").mkdir(parents=True)
        (tmp_path / kind / "refs" / "main").write_text(f"{commit}\n")
    assert folder_stamp("owner/model") == ["c1"]
    assert folder_stamp("owner/data:forget05") == ["c2"]


def test_identity_is_told_without_torch():
    code = "import sys, erasus_nb.workloads.identity as i; i.folder_stamp('a/b'); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.strip() == "False", said.stderr


# ------------------------------------------------------------------ what is up to date


@pytest.fixture
def finished(tmp_path):
    """Asks whether a page's last run, of the values first given, is up to date for others."""

    class Job(__main__.Job):
        output = property(lambda self: tmp_path / "run.ipynb")

    def job(name, **given):
        values = __main__._values(name, list(given.items()), "smoke")
        found = __main__._job(name, values, "package")
        return Job(name, values, found.stamp, found.steps)

    def ran(name, **given):
        run = cells.notebook(name)
        for cell in run["cells"]:
            if cell["cell_type"] == "code":
                cell.update(execution_count=1, outputs=[])
        run["metadata"] |= {
            "language_info": {"name": "python"},
            "papermill": {"end_time": "x"},
            "erasus": {"stamp": job(name, **given).stamp},
        }
        (tmp_path / "run.ipynb").write_text(json.dumps(run))
        return lambda: __main__._is_done(job(name, **given))

    return ran


def rows(out, board, category):
    for name in ("reference", category):
        path = records.path_of("smoke", board, name, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_a_published_run_is_up_to_date_by_its_own_board(tmp_path, finished):
    sources = {name: tmp_path / name for name in ("model", "data", "retrained", "tokenizer")}
    for name, folder in sources.items():
        folder.mkdir()
        (folder / "file").write_text(name)
    given = {name: str(folder) for name, folder in sources.items()}
    done = finished("gradient", **given, out=str(tmp_path / "out"))
    assert not done()
    # Neither the small model's rows nor those of a model whose name begins alike.
    rows(tmp_path / "out", "text", "gradient")
    rows(tmp_path / "out", "text-data-model-2-0123abcd", "gradient")
    assert not done()
    rows(tmp_path / "out", "text-data-model-0123abcd", "gradient")
    assert done()
    for folder in sources.values():
        before = (folder / "file").stat()
        os.utime(folder / "file", ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
        assert not done()
        os.utime(folder / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert done()


def test_another_request_is_up_to_date_by_its_own_board(tmp_path, finished):
    given = {"request": "most", "workloads": "['synthetic']", "out": str(tmp_path / "out")}
    done = finished("gradient", **given)
    rows(tmp_path / "out", "synthetic", "gradient")
    assert not done()
    rows(tmp_path / "out", "synthetic-most", "gradient")
    assert done()


def test_data_with_a_request_are_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "TOFU").mkdir()
    monkeypatch.chdir(tmp_path)
    for data in ("TOFU:forget05", "./TOFU:forget05"):
        values = __main__._values("gradient", [("data", data)], "smoke")
        assert values["data"] == f"{tmp_path.resolve()}/TOFU:forget05"
