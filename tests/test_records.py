"""Result documents: what is refused, what is written, and the published schema."""

import json

import fabricate
import jsonschema
import pytest

from erasus_nb import ROOT, records


@pytest.fixture
def rows(tmp_path):
    """A folder of sound rows and the path of one document in it."""
    folder = fabricate.write(tmp_path / "laptop", fabricate.documents(seeds=2))
    return folder, folder / "synthetic" / "gradient.json"


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_what_is_written_is_what_is_read(tmp_path):
    document = fabricate.documents(seeds=2)[1]
    path = records.path_of("laptop", document.workload, document.category, tmp_path)
    records.write(path, document)
    assert path == tmp_path / "laptop" / "synthetic" / "gradient.json"
    assert records.read(path) == document


def test_a_row_takes_one_line_so_that_a_change_of_one_row_is_one_line_of_a_diff(tmp_path):
    document = fabricate.documents(seeds=2)[1]
    before = records.dumps(document).splitlines()
    document.rows[0].settings["lr"] = 0.5
    after = records.dumps(document).splitlines()
    assert len(before) == len(after)
    assert sum(a != b for a, b in zip(before, after)) == 1


def set_at(*keys, value):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change, said",
    [
        (set_at("schema_version", value=99), "schema version 99; this book reads 2"),
        (set_at("schema_version", value=1), "schema version 1; this book reads 2"),
        (set_at("schema_version", value="2.0"), "schema version '2.0'"),
        (lambda data: data.pop("schema_version"), "not a result document of this book"),
        (lambda data: data.pop("environment"), "does not validate at environment"),
        (set_at("rows", 0, "invented", value=1), "rows.0.invented"),
        (set_at("rows", 0, "metrics", "C1", "value", value="0,9"), "rows.0.metrics.C1.value"),
        (set_at("rows", 0, "metrics", "C1", "value", value=float("nan")), "C1.value"),
        (set_at("rows", 0, "metrics", "C1", "value", value=None), "no value and no reason"),
        (set_at("rows", 0, "metrics", value={}), "ok but measured nothing"),
        (set_at("rows", 0, "status", value="error"), "without a reason"),
        (set_at("rows", 0, "status", value="great"), "rows.0.status"),
        (lambda data: data["rows"].append(data["rows"][0]), "two rows for"),
    ],
)
def test_a_foreign_or_edited_document_is_named_and_refused(rows, change, said):
    folder, path = rows
    edit(path, change)
    for attempt in (lambda: records.read(path), lambda: records.load(folder)):
        with pytest.raises(records.RecordError) as caught:
            attempt()
        assert said in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 400, -3])
def test_a_truncated_document_is_named_and_refused(rows, keep):
    folder, path = rows
    path.write_text(path.read_text()[:keep])
    with pytest.raises(records.RecordError, match="gradient.json: is not complete JSON"):
        records.load(folder)


def test_bytes_that_are_not_text_are_refused(rows):
    _, path = rows
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(records.RecordError, match="gradient.json"):
        records.read(path)


@pytest.mark.parametrize("text", ["[]", "3", '"laptop"', "null"])
def test_json_that_is_no_document_is_refused(rows, text):
    _, path = rows
    path.write_text(text)
    with pytest.raises(records.RecordError, match="not a result document"):
        records.read(path)


def test_a_moved_document_is_refused(rows):
    folder, path = rows
    path.rename(path.with_name("data.json"))
    with pytest.raises(records.RecordError, match="data.json: says it is synthetic/gradient"):
        records.load(folder)
    (folder / "digits").mkdir()
    path.with_name("data.json").rename(folder / "digits" / "gradient.json")
    with pytest.raises(records.RecordError, match="says it is synthetic/gradient"):
        records.load(folder)


def test_a_missing_file_is_a_record_error(tmp_path):
    with pytest.raises(records.RecordError, match="nothing.json: cannot be read"):
        records.read(tmp_path / "nothing.json")


def test_reference_rows_come_first(rows):
    folder, _ = rows
    categories = [document.category for document in records.load(folder)["synthetic"]]
    assert categories[0] == "reference" and categories[1:] == sorted(categories[1:])


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    records.write_text(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "replace", fail)
    with pytest.raises(records.RecordError, match="x.json: cannot be written .No space left"):
        records.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_finished_write_leaves_no_temporary_file(tmp_path):
    records.write_text(tmp_path / "deep" / "x.json", "new")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.json"]


def test_a_folder_that_cannot_be_made_is_a_record_error(tmp_path):
    (tmp_path / "results").write_text("a file, not a folder")
    path = tmp_path / "results" / "laptop" / "x.json"
    with pytest.raises(records.RecordError, match="cannot be written"):
        records.write_text(path, "new")


def test_a_document_made_wrong_in_memory_is_not_written(tmp_path):
    document = fabricate.documents(seeds=1)[1]
    document.rows[0].status = "error"  # without a reason
    with pytest.raises(ValueError, match="without a reason"):
        records.write(tmp_path / "x.json", document)
    assert not list(tmp_path.iterdir())


def test_where_rows_were_made_is_said_of_the_rows_and_not_of_their_document():
    document = fabricate.documents(seeds=2)[1]
    usual, rows = records.stamp(document.rows), document.rows
    assert usual == "cpu, 1 thread, torch 2.13.0; commit 0123456789; 2026-01-31"
    document.environment = fabricate.environment(commit="f" * 16, dirty=True)
    assert records.stamp(rows) == usual
    rows[0].made = fabricate.environment(commit="f" * 16, dirty=True, at="2026-02-01T12:00:00Z")
    assert records.stamp(rows) == (
        "cpu, 1 thread, torch 2.13.0; commit 0123456789 and ffffffffff "
        "with uncommitted changes; 2026-02-01"
    )


# ------------------------------------------------------------------ the published schema

SCHEMA = ROOT / "docs" / "result.schema.json"


def test_the_published_schema_is_the_one_that_validates():
    assert json.loads(SCHEMA.read_text()) == records.json_schema()


@pytest.mark.parametrize("document", fabricate.documents(seeds=2), ids=lambda d: d.category)
def test_documents_as_written_fit_the_published_schema(document):
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(records.dumps(document)), schema)


@pytest.mark.parametrize(
    "change",
    [
        set_at("schema_version", value=1),
        set_at("rows", 0, "status", value="great"),
        set_at("rows", 0, "metrics", "C1", "value", value="0.9"),
        set_at("more", value=1),
    ],
)
def test_the_published_schema_refuses_what_the_reader_refuses(rows, change):
    _, path = rows
    edit(path, change)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))


def test_published_rows_validate():
    folder = ROOT / "results" / "published"
    for documents in records.load(folder).values():
        for document in documents:
            assert document.profile in ("laptop", "full")
            assert not any(row.made.dirty or row.edited for row in document.rows)


def test_hidden_files_and_folders_are_no_rows(tmp_path):
    folder = fabricate.write(tmp_path / "laptop", fabricate.documents(seeds=2))
    loaded, found = records.load(folder), records.paths(folder)
    (folder / "synthetic" / "._gradient.json").write_bytes(b"\x00\x05\x16\x07")
    for hidden in (
        folder / ".trash",
        tmp_path / ".laptop" / "synthetic",
        tmp_path / "empty" / ".x",
    ):
        hidden.mkdir(parents=True)
        (hidden / "gradient.json").write_text("{")
    assert records.load(folder) == loaded
    assert records.paths(folder) == found and len(found) == len(loaded["synthetic"])
