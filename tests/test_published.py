"""Models and data of others: read in their authors' layouts, refused with a sentence."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import published
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, ViTConfig, ViTModel

from erasus_nb import cells, parameters, training, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.metrics import rouge_l
from erasus_nb.profiles import PublishedSizes, Recipe
from erasus_nb.strategy import Batch, NotApplicable, Split, settings_of, strategy
from erasus_nb.task import Meter
from erasus_nb.training import same_weights
from erasus_nb.workloads import Published
from erasus_nb.workloads.text import IGNORED, TextTask, following
from erasus_nb.workloads.text.published import (
    DAY,
    Example,
    _ask,
    _holding,
    _pieces,
    _tokens,
    build,
    open_model,
    stopped_clock,
)

CPU = torch.device("cpu")
RECIPE = Recipe(2, 1e-3, 4)
SIZES = PublishedSizes(1, 96, None, None, RECIPE, dtype="float32")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with every layout and two checkpoints of one architecture."""
    folder = tmp_path_factory.mktemp("published")
    published.muse(folder / "MUSE-News")
    published.muse(folder / "MUSE-Books", scal=False)
    published.tofu(folder / "TOFU")
    published.checkpoint(folder / "target")
    published.checkpoint(folder / "retrained", seed=1)
    return folder


def source(made, data="MUSE-News", model="target", retrained="", tokenizer=""):
    return published.given(made, data, model, retrained, tokenizer)


@pytest.fixture(scope="module")
def news(made):
    return build(source(made), SIZES, CPU)


@pytest.fixture(scope="module")
def answers(made):
    return build(source(made, "TOFU"), SIZES, CPU)


# ------------------------------------------------------------------ what is read


def test_muse_becomes_four_folds_and_the_rest_is_retained(news):
    asked = news.request()
    forgotten = {news.decode(row) for row in asked.forget["inputs"]}
    for text in published.sentences(4, "forget 0"):
        assert any(text.startswith(part) for part in forgotten)
    kept = " ".join(news.decode(row) for row in asked.retain["inputs"])
    for seed in ("forget 1", "forget 2", "forget 3", "retain"):
        for text in published.sentences(4, seed):
            assert text[:60] in kept
    assert len(asked.holdout) == 3
    assert len(news.request(folds=(1, 2)).forget) > len(asked.forget)


@pytest.mark.parametrize("folds", [(1,), (1, 2)])
def test_what_muse_asks_to_forget_is_not_retained_as_well(news, folds):
    asked = news.request(folds=folds)
    kept = " ".join(news.decode(row) for row in asked.retain["inputs"])
    for fold in folds:
        for text in published.sentences(4, f"forget {fold - 1}"):
            assert text[:60] not in kept


def test_muse_probes_are_the_published_ones(news):
    parts = news.request().parts
    given, true = news.parted(parts["forget"].passages[0])
    passage = published.sentences(4, "forget 0")[0]
    assert passage.startswith(news.decode(given).strip())
    assert news.decode(true).strip() in passage
    question, answer = parts["forget"].unseen[0]
    asked, _, wanted = published.questions(4, "forget 0")[0]
    assert question.count("Question:") == 3  # two examples, then the question
    assert question.endswith(f"Question: {asked}\nAnswer: ")
    assert answer == wanted
    lengths = [len(news.opened(g)) for g, _ in parts["forget"].passages]
    assert news.prompt == sum(lengths) // len(lengths)
    # MUSE's lengths: 128 tokens of text and 32 of an answer.
    assert (news.continuation, news.answer) == (128, 32)


def test_books_have_one_fold_and_the_same_probes(made, news):
    books = build(source(made, "MUSE-Books"), SIZES, CPU)
    assert len(books.folds) == 1
    assert books.request().parts == news.request().parts


def test_tofu_learns_answers_and_not_questions(answers):
    forget = answers.request().forget
    for row, labels, (ask, _, answer) in zip(
        forget["inputs"], forget["labels"], published.questions(6, "forget 0")
    ):
        learnt = labels != IGNORED
        assert answers.decode(row[learnt]).strip() == answer
        assert ask in answers.decode(row[~learnt])
        assert row[learnt][-1] == answers.eos


def test_tofu_asks_in_both_phrasings(answers):
    part = answers.request().parts["forget"]
    for (seen, a), (unseen, b), (ask, other, answer) in zip(
        part.seen, part.unseen, published.questions(6, "forget 0")
    ):
        assert ask in seen and other in unseen and a == b == answer


def test_tofu_validation_and_holdout_share_no_question(answers):
    asked = answers.request()
    texts = lambda batch: " ".join(answers.decode(row) for row in batch["inputs"])
    kept, told = texts(answers.validation(asked)), texts(asked.holdout)
    for question, _, _ in published.questions(8, "holdout"):
        assert (question in kept) != (question in told)


def test_muse_validation_is_not_the_holdout(news):
    asked = news.request()
    told = " ".join(news.decode(r) for r in asked.holdout["inputs"]).split()
    runs = {tuple(told[k : k + 8]) for k in range(len(told))}
    further = [news.decode(row) for row in news.validation(asked)["inputs"]]
    for words in map(str.split, further):
        assert not any(tuple(words[k : k + 8]) in runs for k in range(len(words)))
    # Of eight articles, those that no chunk was cut from are all there.
    for article in published.sentences(8, "holdout")[4:]:
        assert article[:60] in " ".join(further)


def test_without_further_texts_there_is_no_validation(made, tmp_path):
    folder = published.muse(tmp_path / "MUSE-Books", scal=False)
    import pandas as pd

    path = next((folder / "privleak").glob("holdout*"))
    pd.read_parquet(next((folder / "raw").glob("holdout*"))).to_parquet(path)
    found = Published(str(made / "target"), str(folder))
    bench = Bench("text", "smoke", out=None, cache="", published=found)
    assert bench.load.validation(bench.asked) is None
    # Only a strategy that wants it has to do without.
    [row] = bench.run(cells.strategies("llm")["token_masking"], keep=False)
    assert row.status == "ok"
    scrub = cells.strategies("gradient")["scrub"]
    [row] = bench.run(scrub, settings={"rewind": True, "epochs": 1}, keep=False)
    assert row.status == "error" and "sets no validation" in row.reason


def test_an_article_that_a_chunk_begins_in_is_told():
    article = " ".join(f"w{k}" for k in range(30))
    chunk = article.split(" ", 15)[15] + " and then another one"
    assert _holding([chunk], [article, "nothing of it"]) == [True, False]
    assert _holding(["New York"], ["in New York now", "in New Yorkshire"]) == [True, False]
    assert _holding([], ["anything"]) == [False]
    # Of a script without spaces, characters stand in for words.
    told = "她的名字是王小明，住在北京。"
    assert _holding([told], [f"昨天，{told[:9]}来了", "今天天气很好，我们去公园。"]) == [
        True,
        False,
    ]
    assert "".join(_pieces(told * 20 + " end")) == told * 20 + " end"
    assert max(map(len, _pieces(told * 40))) == 200


def test_what_is_read_may_be_longer_than_what_is_trained_on(made):
    narrow = build(source(made), replace(SIZES, tokens=16), CPU)
    asked = narrow.request()
    assert asked.forget["inputs"].shape[1] == 16
    assert narrow.prompt > 4
    read = narrow.rows_of(asked)
    whole = {k: [narrow.decode(r) for r in b["inputs"]] for k, b in read.items()}
    assert whole["forget"] == published.sentences(4, "forget 0")
    measured, _ = narrow.measure(narrow.start_model(0), asked)
    assert measured["extraction_strength"][4] == 4


def test_texts_without_anything_after_the_prompt_have_no_extraction_strength(made):
    load = build(source(made), SIZES, CPU)
    load.prompt = 300
    asked = load.request()
    rows = load.rows_of(asked)
    assert rows["forget"]["inputs"].shape[1] < load.prompt
    measured, _ = load.measure(load.start_model(0), asked)
    name, value, *_, count, reason = measured["extraction_strength"]
    assert value is None and count == 0 and "longer than its prompt" in reason


def test_long_texts_become_several_examples_of_the_width(made):
    short = build(source(made), PublishedSizes(1, 24, None, None, RECIPE), CPU)
    asked = short.request()
    assert short.data["inputs"].shape[1] == 24
    assert len(asked.forget) > 4
    whole = "".join(short.decode(row) for row in asked.forget["inputs"])
    for text in published.sentences(4, "forget 0"):
        assert text in whole  # nothing is lost at the seams


def test_a_profile_takes_at_most_so_many_examples_and_probes(made):
    few = build(source(made), PublishedSizes(1, 300, 3, 2, RECIPE, forget=2), CPU)
    asked = few.request()
    assert len(asked.forget) == 2
    assert len(asked.retain) == 3 + 3 * 3  # the retain set, and three other folds
    assert len(asked.parts["forget"].unseen) == len(asked.holdout) == 2
    # Whoever wants few in other places still asks about the whole forget set.
    some = build(source(made), PublishedSizes(1, 300, 1, 2, RECIPE), CPU)
    assert len(some.request().forget) == 4


def test_a_cut_takes_the_same_places_of_what_belongs_together(made):
    few = build(source(made, "TOFU"), replace(SIZES, probes=3), CPU)
    part = few.request().parts["forget"]
    for (seen, a), (unseen, b), (_, c) in zip(part.seen, part.unseen, part.passages):
        assert a == b == c and seen != unseen


# ------------------------------------------------------------------ models


def test_the_published_pair_is_taken_as_it_is(made):
    bench = Bench(
        "text", "smoke", out=None, cache="", published=source(made, retrained="retrained")
    )
    for kind, name in (("original", "target"), ("retrained", "retrained")):
        stored = AutoModelForCausalLM.from_pretrained(made / name).state_dict()
        [state] = getattr(bench, f"{kind}s" if kind == "original" else kind)().values()
        assert same_weights({k: v.float() for k, v in state.items()}, stored)
    with pytest.raises(ValueError, match="left out fold 1 and nothing else"):
        bench.load.request(folds=(1, 2))


def test_without_a_retrained_model_both_are_trained_from_the_published_one(made, news):
    asked = news.request()
    start = news.start_model(0).state_dict()
    [trained] = news.train([asked.retain["ids"]], [0])
    stored = AutoModelForCausalLM.from_pretrained(made / "target").state_dict()
    assert same_weights(start, stored)
    assert not same_weights(trained, start)
    loss = lambda state: float(news.task().loss(news.load(state), asked.retain).mean().detach())
    assert loss(trained) < loss(start)
    assert not same_weights(news.make_model(0).state_dict(), start)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_of_the_wanted_type(made, dtype):
    model = open_model(str(made / "target"), dtype, CPU)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    assert not model.training


def test_activations_are_computed_again_in_large_models_only(made):
    for limit, wanted in ((0, True), (10**9, False)):
        sizes = PublishedSizes(1, 96, 4, 2, RECIPE, checkpointing=limit)
        assert build(source(made), sizes, CPU).start_model(0).is_activation_checkpointing == (
            wanted
        )


@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_recomputes_in_either_mode_and_changes_no_gradient(made, training):
    found, runs = [], []
    for limit in (0, 10**9):
        sizes = PublishedSizes(1, 96, 4, 2, RECIPE, "float32", limit)
        load = build(source(made), sizes, CPU)
        model, count = load.start_model(0).train(training), []
        for layer in model.model.layers:
            layer.self_attn.register_forward_hook(lambda *_: count.append(1))
        load.task().loss(model, load.request().forget).mean().backward()
        assert all(layer.training == training for layer in model.model.layers)
        found.append([p.grad for p in model.parameters()])
        runs.append(len(count))
    assert runs[0] == 2 * runs[1] > 0
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_per_example_gradients_are_the_same_with_checkpointing(made):
    found = []
    for limit in (0, 10**9):
        sizes = PublishedSizes(1, 96, 4, 2, RECIPE, "float32", limit)
        load = build(source(made), sizes, CPU)
        batch = load.request().forget
        model = load.start_model(0)
        found.append(training.squared_gradients(model, load.task(), batch))
        masks = cells.strategies("parameter")["mask_based"]
        bench = Bench("text", "smoke", out=None, cache="", published=source(made))
        bench.load, bench.asked = load, load.request()
        result, _, _ = bench.unlearn(masks, 0, {"steps": 3, "lr": 0.5})
        found[-1] |= result.model.state_dict()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])


def test_training_is_decided_by_its_seed_even_with_dropout(made, tmp_path):
    model = published.checkpoint(tmp_path / "gpt2", "gpt2")
    load = build(Published(str(model), str(made / "TOFU")), SIZES, CPU)
    ids, found = load.request().retain["ids"], []
    for state in (1, 2):
        torch.manual_seed(state)
        found += load.train([ids], [0])
    assert same_weights(*found)
    assert not same_weights(found[0], load.train([ids], [1])[0])


def test_other_weights_under_the_same_name_are_another_workload(made, tmp_path):
    found = []
    for seed in (0, 0, 7):
        name = published.checkpoint(tmp_path / "model", seed=seed)
        found.append(build(Published(str(name), str(made / "TOFU")), SIZES, CPU))
    assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint


def test_a_board_is_what_was_read_wherever_it_lies(made, tmp_path):
    """The same files elsewhere are the same; any other model, tokenizer or data is another."""
    place = lambda name: shutil.copytree(made / name, tmp_path / "elsewhere" / name)
    own = source(made, "TOFU", retrained="retrained", tokenizer="target")
    board = build(own, SIZES, CPU)
    moved = Published(*map(str, map(place, ("target", "TOFU", "retrained"))), "")
    assert build(replace(moved, tokenizer=moved.model), SIZES, CPU).name == board.name
    renamed = Path(moved.model).rename(tmp_path / "elsewhere" / "модель")
    again = build(replace(moved, model=str(renamed)), SIZES, CPU)
    assert again.fingerprint == board.fingerprint
    assert again.name == f"text-tofu-модель-{board.fingerprint[:8]}"

    # One change at a time, under the names that the board has.
    names = {board.name}
    other = lambda name: tmp_path / str(len(names)) / name
    model = published.checkpoint(other("target"), seed=5)
    names.add(build(replace(own, model=str(model)), SIZES, CPU).name)
    model = published.checkpoint(other("retrained"), seed=5)
    names.add(build(replace(own, retrained=str(model)), SIZES, CPU).name)
    chat = shutil.copytree(made / "target", other("target"))
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(chat)
    names.add(build(replace(own, tokenizer=str(chat)), SIZES, CPU).name)
    tokenizer = shutil.copytree(made / "target", other("target"))
    rules = json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))
    rules["post_processor"] = None
    (tokenizer / "tokenizer.json").write_text(json.dumps(rules), "utf-8")
    names.add(build(replace(own, tokenizer=str(tokenizer)), SIZES, CPU).name)
    data = shutil.copytree(made / "TOFU", other("TOFU"))
    edited(data, 0, answer="Nobody knows.")
    names.add(build(replace(own, data=str(data)), SIZES, CPU).name)
    model = shutil.copytree(made / "target", other("target"))
    config = json.loads((model / "config.json").read_text("utf-8")) | {"rms_norm_eps": 1e-3}
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    names.add(build(replace(own, model=str(model)), SIZES, CPU).name)
    assert len(names) == 7
    assert {name[:-8] for name in names} == {"text-tofu-target-"}


def test_rows_of_two_models_of_one_folder_name_share_no_document(made, tmp_path):
    found = []
    for seed, run in enumerate(("one", "other")):
        model = published.checkpoint(tmp_path / run / "final", seed=seed)
        own = Published(str(model), str(made / "TOFU"), str(made / "retrained"))
        bench = Bench("text", "smoke", range(1), cache="", out=tmp_path / "out", published=own)
        bench.references()
        found.append(bench.name)
    assert len(set(found)) == 2
    assert sorted(p.name for p in (tmp_path / "out" / "smoke").iterdir()) == sorted(found)


def test_a_model_with_parts_of_other_names_has_no_known_layers(made):
    load = build(source(made), SIZES, CPU)
    model = load.start_model(0)
    assert len(load.task().decoder(model)) == len(model.model.layers)
    mlp = model.model.layers[0].mlp
    mlp.gate_up_proj = mlp.gate_proj
    del mlp.gate_proj
    with pytest.raises(NotApplicable, match="have other names"):
        load.task().decoder(model)


def test_names_are_looked_for_before_any_work(made):
    bench = Bench("text", "smoke", out=None, cache="", published=source(made))
    function = cells.strategies("llm")["embedding_alignment"]
    sets = (Split(k, getattr(bench.asked, k)) for k in ("forget", "retain"))
    meter = Meter()
    task = bench.load.task(meter=meter)
    with pytest.raises(NotApplicable, match="mark no names"):
        function(bench.load.start_model(0), *sets, task, **settings_of(function))
    assert meter.passes == 0


def test_without_a_start_token_only_the_first_place_starts_a_text(made):
    rows = torch.tensor([[5, 6, 5, 1, 0], [7, 8, 8, 0, 0]])
    batch = Batch({"inputs": rows, "ids": torch.arange(2)})
    load = build(source(made), SIZES, CPU)
    for bos, wanted in ((1, [[0, 3], [0]]), (None, [[0], [0]])):
        load.bos = bos
        starts = load.task().starts(batch)
        assert [row.nonzero()[:, 0].tolist() for row in starts] == wanted


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_whole_row_for_either_architecture(made, tmp_path, architecture):
    model = published.checkpoint(tmp_path / architecture, architecture)
    bench = Bench(
        "text", "smoke", out=None, cache="", published=Published(str(model), str(made / "TOFU"))
    )
    reference = bench.references()
    assert {row.status for row in reference.rows} == {"ok"}
    # Not one whose settings stop it at the validation loss: this model has learnt nothing.
    [row] = bench.run(cells.strategies("gradient")["negative_gradient"], keep=False)
    assert row.status == "ok" and row.weights_changed
    assert reference.facts["published"]["data"] == str(made / "TOFU")
    content = bench.load.fingerprint
    assert reference.facts["published"]["content"] == content
    assert bench.name == f"text-tofu-{architecture}-{content[:8]}"


def test_a_mark_that_names_the_workload_means_published_models_of_it_too(made):
    @strategy(category="Test", cite="", reads=(), needs=("classes",), analogue=(), on=("text",))
    def stands_in(model, forget, retain, task, *, seed=0):
        raise NotApplicable("it is only a test")

    bench = Bench("text", "smoke", out=None, cache="", published=source(made))
    [row] = bench.run(stands_in, keep=False)
    assert row.analogue and bench.load.name != "text"


def test_every_strategy_runs_or_says_why_not(made):
    bench = Bench("text", "smoke", out=None, cache="", published=source(made))
    refused = {}
    for category in ("gradient", "parameter", "data", "ensemble", "llm"):
        for name, function in cells.strategies(category).items():
            [row] = bench.run(function, keep=False)
            if row.status != "ok":
                refused[name] = (row.status, row.reason)
    assert refused.keys() == {
        "modality_decoupling",
        "amnesiac",
        "sisa",
        "certified_removal",
        "causal_tracing",
        "embedding_alignment",
    }
    assert {status for status, _ in refused.values()} == {"not_applicable"}


def test_every_strategy_runs_in_bfloat16(made):
    sizes = PublishedSizes(1, 96, None, 4, RECIPE)
    bench = Bench("text", "smoke", out=None, cache="", published=source(made))
    bench.load = build(source(made), sizes, CPU)
    bench.asked = bench.load.request()
    for category in ("gradient", "parameter", "data", "ensemble", "llm"):
        for name, function in cells.strategies(category).items():
            [row] = bench.run(function, keep=False)
            assert row.status in ("ok", "not_applicable"), (name, row.reason)


@pytest.mark.parametrize(
    ("category", "name"), [("parameter", "mask_based"), ("data", "knowledge_distillation")]
)
def test_what_a_teacher_says_need_not_fit_memory(made, monkeypatch, category, name):
    bench = Bench("text", "smoke", out=None, cache="", published=source(made))
    function = cells.strategies(category)[name]
    settings = {**bench.full_settings(function)[0]}
    settings |= {"steps": 5} if name == "mask_based" else {"epochs": 2}
    found, sizes, of = [], set(), TextTask.outputs

    def outputs(task, model, batch):
        if not torch.is_grad_enabled():
            sizes.add(len(batch))
        return of(task, model, batch)

    monkeypatch.setattr(TextTask, "outputs", outputs)
    for numbers in (training.KEPT_NUMBERS, 0):
        monkeypatch.setattr(training, "KEPT_NUMBERS", numbers)
        found.append(bench.unlearn(function, 0, settings)[0])
    assert max(sizes) <= 32
    kept, anew = (result.model.state_dict() for result in found)
    assert all(torch.allclose(kept[k], anew[k], atol=1e-5) for k in kept)
    for curve, again in zip(*(result.losses.values() for result in found)):
        assert curve == pytest.approx(again, rel=1e-3)


def test_step_sizes_follow_the_base_step_size(made):
    bench = Bench("text", "smoke", out=None, cache="", published=source(made))
    own = Bench("text", "smoke", out=None, cache="")
    share = bench.load.sizes.recipe.lr / 8e-3
    function = cells.strategies("gradient")["gradient_ascent"]
    settings, by = bench.full_settings(function)
    assert settings["lr"] == pytest.approx(own.full_settings(function)[0]["lr"] * share)
    assert "nothing was tuned on this model" in by
    masks = cells.strategies("parameter")["mask_based"]
    assert bench.chosen(masks)[0] == own.chosen(masks)[0]


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("drop", "sentence"),
    [
        (("privleak", "holdout"), "configuration privleak of .* has no split holdout; "),
        (("knowmem", "forget_qa_icl"), "has no split forget_qa_icl; it has forget_qa"),
    ],
)
def test_a_missing_split_is_named(made, tmp_path, drop, sentence):
    folder = published.muse(tmp_path / "MUSE-News", drop=drop)
    with pytest.raises(ValueError, match=sentence):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)


def test_nested_requests_must_be_nested(made, tmp_path):
    import pandas as pd

    folder = published.muse(tmp_path / "MUSE-News")
    path = next((folder / "scal").glob("forget_2*"))
    pd.DataFrame({"text": ["something else"]}).to_parquet(path)
    with pytest.raises(ValueError, match="scal/forget_2 .* is not the first 2 of sust"):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)


def test_other_layouts_are_refused(made, tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain\n  data_files: plain.json\n---\n"
    )
    (tmp_path / "plain.json").write_text('{"text": "a"}')
    with pytest.raises(ValueError, match=r"configurations plain; wanted are MUSE's"):
        build(Published(str(made / "target"), str(tmp_path)), SIZES, CPU)


def test_a_missing_request_of_tofu_is_refused(made):
    with pytest.raises(ValueError, match="wanted are"):
        build(Published(str(made / "target"), f"{made / 'TOFU'}:forget05"), SIZES, CPU)


def edited(folder, number, **fields):
    lines = (folder / "forget10.json").read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **fields})
    (folder / "forget10.json").write_text("\n".join(lines))
    return str(folder)


def test_an_empty_passage_is_named(made, tmp_path):
    data = edited(published.tofu(tmp_path / "TOFU"), 2, answer=" ")
    with pytest.raises(ValueError, match="forget10/train of .*: answer 2 is empty"):
        build(Published(str(made / "target"), data), SIZES, CPU)


def test_an_answer_without_a_word_is_named(made, tmp_path):
    folder = published.tofu(tmp_path / "TOFU")
    edited(folder, 2, answer="?!")
    with pytest.raises(ValueError, match=r"the answer '\?!' of forget holds no word"):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)


def test_a_broken_data_file_says_where_and_why(made, tmp_path):
    folder = published.tofu(tmp_path / "TOFU")
    path = folder / "forget10.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="TOFU, forget10 cannot be read: .*JSON"):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)
    published.tofu(folder)
    path.write_bytes(path.read_bytes().replace(b'answer": "', b'answer": "\xe9'))
    with pytest.raises(ValueError, match="forget10/train of .*TOFU is not UTF-8 text"):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)


@pytest.mark.parametrize(("answer", "kind"), [(1950, "int"), (["Ann"], "list")])
def test_an_answer_that_is_no_text_is_not_called_empty(made, tmp_path, answer, kind):
    folder = published.tofu(tmp_path / "TOFU")
    for number in range(6):  # a column holds one kind
        edited(folder, number, answer=answer)
    with pytest.raises(ValueError, match=f"answer 0 is no text but of type {kind}"):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)


def test_a_passage_no_longer_than_the_prompt_is_named(made, tmp_path):
    import pandas as pd

    folder = published.muse(tmp_path / "MUSE-News")
    for config in ("raw", "privleak"):
        path = next((folder / config).glob("holdout*"))
        rows = pd.read_parquet(path)
        rows.loc[1, "text"] = "A word."
        rows.to_parquet(path)
    with pytest.raises(ValueError, match="holdout passage 1 has .* nothing is left"):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)


def test_a_prompt_that_the_model_cannot_hold_is_refused(made, tmp_path):
    import pandas as pd

    folder = published.muse(tmp_path / "MUSE-News")
    path = next((folder / "knowmem").glob("forget_qa-*"))
    rows = pd.read_parquet(path)
    rows.loc[0, "question"] = rows.loc[0, "question"] * 60
    rows.to_parquet(path)
    with pytest.raises(ValueError, match="tokens and the model holds 320"):
        build(Published(str(made / "target"), str(folder)), SIZES, CPU)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_model_without_a_pad_token_gets_an_unused_one_and_says_so(made, tmp_path, architecture):
    model = published.checkpoint(tmp_path / "bare", architecture, pad_token=None)
    with pytest.warns(UserWarning, match="no padding token of its own; token .* stands"):
        load = build(Published(str(model), str(made / "TOFU")), SIZES, CPU)
    asked = load.request()
    for batch in (asked.forget, asked.retain, asked.holdout):
        learnt = batch["labels"] != IGNORED
        assert not (batch["inputs"][learnt] == load.pad).any()
        assert (batch["inputs"][learnt] == load.eos).any()  # an end token is no padding


def test_the_end_token_as_padding_would_hide_ends_so_another_stands_in(made, tmp_path):
    model = published.checkpoint(tmp_path / "same", pad_token="<eos>")
    with pytest.warns(UserWarning, match="stands in for it"):
        load = build(Published(str(model), str(made / "TOFU")), SIZES, CPU)
    assert load.pad != load.eos


def test_a_model_with_a_pad_token_keeps_it(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load = build(source(made, "TOFU"), SIZES, CPU)
    assert load.tokenizer.pad_token == "<pad>"


def test_a_tokenizer_that_does_not_match_is_refused(made, tmp_path):
    other = AutoTokenizer.from_pretrained(made / "target")
    other.add_tokens([f"new{k}" for k in range(10)])
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="embeds .*: it is not this model's tokenizer"):
        build(
            Published(str(made / "target"), str(made / "TOFU"), "", str(tmp_path / "other")),
            SIZES,
            CPU,
        )


def test_a_smaller_tokenizer_that_ends_texts_otherwise_is_refused(made, tmp_path):
    texts = published.sentences(8, "forget 0")
    other = published.byte_pairs(texts, 400, ["<eos>", "<pad>", "x", "<bos>"])
    other.save_pretrained(tmp_path / "other")
    given = str(made / "target"), str(made / "TOFU"), "", str(tmp_path / "other")
    with pytest.raises(ValueError, match="ends texts .* it is not this model's tokenizer"):
        build(Published(*given), SIZES, CPU)


def test_a_base_model_may_end_texts_with_another_special_token(made, tmp_path):
    """The base models of Qwen name one token twice, and their tokenizers end a turn otherwise."""
    shutil.copytree(made / "target", tmp_path / "base")

    def edited(name, **values):
        file = tmp_path / "base" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    edited("tokenizer_config.json", bos_token=None, eos_token="<eos>", pad_token="<bos>")
    edited("config.json", bos_token_id=1, eos_token_id=1)
    load = build(Published(str(tmp_path / "base"), str(made / "TOFU")), SIZES, CPU)
    assert load.tokenizer.eos_token == "<eos>" and load.tokenizer.bos_token is None
    edited("config.json", bos_token_id=1, eos_token_id=7)  # of which one is an ordinary word
    with pytest.raises(ValueError, match="it is not this model's tokenizer"):
        build(Published(str(tmp_path / "base"), str(made / "TOFU")), SIZES, CPU)


def test_a_model_that_lacks_weights_is_refused(made, tmp_path):
    model = published.checkpoint(tmp_path / "part")
    weights = load_file(model / "model.safetensors")
    name = next(n for n in sorted(weights) if "down_proj" in n)
    del weights[name]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"lacks the weights {re.escape(name)}, which"):
        build(Published(str(model), str(made / "TOFU")), SIZES, CPU)


def test_an_adapter_is_refused(made, tmp_path):
    folder = shutil.copytree(made / "target", tmp_path / "lora")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    for own in (
        Published(str(folder), str(made / "TOFU")),
        Published(str(made / "target"), str(made / "TOFU"), str(folder)),
    ):
        with pytest.raises(ValueError, match=r"lora is an adapter \(LoRA\)"):
            build(own, SIZES, CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        {"num_hidden_layers": "2"},
    ],
)
def test_whatever_is_wrong_with_a_configuration_is_one_sentence(made, tmp_path, change):
    folder = shutil.copytree(made / "target", tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text("utf-8")) | change
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ValueError, match="model .*odd cannot be read: "):
        build(Published(str(folder), str(made / "TOFU")), SIZES, CPU)


@pytest.mark.parametrize("template", ["{{ unknown(1) }}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_is_named(made, tmp_path, template):
    folder = shutil.copytree(made / "target", tmp_path / "odd")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="the chat template of .*odd fails: "):
        build(Published(str(folder), str(made / "TOFU")), SIZES, CPU)


@pytest.mark.parametrize(("value", "said"), [("nan", "NaN"), ("inf", "infinity"), ("-inf", "inf")])
@pytest.mark.parametrize("which", ["model", "retrained"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_not_finite_are_named(made, tmp_path, value, said, which, dtype):
    folder = published.checkpoint(tmp_path / "diverged")
    state, name = load_file(folder / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    state[name][3, 2] = float(value)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    own = replace(source(made, "TOFU", retrained="retrained"), **{which: str(folder)})
    with pytest.raises(ValueError, match=f"diverged holds {said}.* in its weights {name}"):
        build(own, replace(SIZES, dtype=dtype), CPU)


@pytest.mark.parametrize("content", [b"version https://git-lfs", None])
def test_broken_weights_are_refused(made, tmp_path, content):
    model = published.checkpoint(tmp_path / "broken")
    path = model / "model.safetensors"
    path.write_bytes(content or path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="model .* cannot be read: "):
        build(Published(str(model), str(made / "TOFU")), SIZES, CPU)


def test_a_chat_template_gets_a_date_and_a_first_line_that_stay(made, tmp_path):
    model = published.checkpoint(tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(model)
    line = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    today = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n"
    tokenizer.chat_template = today + line
    asked = _ask(tokenizer)("Who won?")
    assert asked == (
        "10 Apr 2025\n[system] You are a helpful assistant.\n[user] Who won?\n[assistant] "
    )
    # A template that asks the clock itself, in words of its own.
    tokenizer.chat_template = "{% set how = '%Y-%m-%d' %}{{ strftime_now(how) }}\n" + line
    assert _ask(tokenizer)("Who won?").startswith("2025-04-10\n[system]")
    for name in ("current_date", "today"):
        tokenizer.chat_template = "{{ " + name + " }}\n" + line
        assert _ask(tokenizer)("Who won?").startswith("10 Apr 2025\n")
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.chat_template = refuse + line
    assert _ask(tokenizer)("Who won?") == "[user] Who won?\n[assistant] "


def test_a_template_asks_the_clock_in_vain_only_while_a_question_is_made():
    from transformers.utils import chat_template_utils

    before = chat_template_utils.datetime
    with pytest.raises(ValueError), stopped_clock():
        assert chat_template_utils.datetime.now() == DAY
        raise ValueError
    assert chat_template_utils.datetime is before


class Sentencepiece:
    """Opens every text with a space of its own, as some tokenizers do."""

    bos_token = bos_token_id = None
    eos_token_id = 0

    def __call__(self, text, add_special_tokens=False):
        pieces = re.findall(r" ?[^ ]+| ", f" {text}" if text else "")
        return {"input_ids": [hash(p) % 10**6 + 1 for p in pieces]}


def test_an_answer_after_a_question_has_no_second_space():
    code = lambda text: Sentencepiece()(text)["input_ids"]
    [row] = _tokens(Sentencepiece(), [Example("Who won?", "Ann did.")], 64)
    assert row["inputs"] == [*code("Who won? Ann did."), 0]
    assert row["given"] == len(code("Who won?"))
    assert following(code, "Who won?", " Ann did.")[1] == code("Ann did.")


def test_a_tokenizer_without_an_end_is_refused(made, tmp_path):
    model = published.checkpoint(tmp_path / "endless", eos_token=None)
    with pytest.raises(ValueError, match="no end-of-text token"):
        build(Published(str(model), str(made / "TOFU")), SIZES, CPU)


def test_pickled_weights_are_not_read(made, tmp_path):
    model = published.checkpoint(tmp_path / "pickled")
    weights = AutoModelForCausalLM.from_pretrained(model).state_dict()
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read"):
        build(Published(str(model), str(made / "TOFU")), SIZES, CPU)


def test_a_retrained_model_of_another_architecture_is_refused(made, tmp_path):
    other = published.checkpoint(tmp_path / "gpt", "gpt2")
    with pytest.raises(ValueError, match="is not of the architecture of"):
        build(Published(str(made / "target"), str(made / "TOFU"), str(other)), SIZES, CPU)


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        ("someone/something", "", "model someone/something is no folder here, and the hub"),
        ("", "someone/something", "dataset someone/something is no folder here, and the"),
        ("nowhere", "", "model 'nowhere' is no folder here and no hub id"),
        ("", "nowhere", "dataset 'nowhere' is no folder here and no hub id"),
    ],
)
def test_a_hub_id_without_network_says_what_to_do(made, monkeypatch, model, data, sentence):
    def unknown(*_):
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    asked = Published(model or str(made / "target"), data or str(made / "TOFU"))
    with pytest.raises(ValueError, match=re.escape(sentence)) as found:
        build(asked, SIZES, CPU)
    if "/" in (model or data):
        assert "hf download" in str(found.value)


#: Reads a dataset without the hub; prints what it read, or why it did not.
OFFLINE = """
import sys
from erasus_nb.workloads.text.published import read
for name in sys.argv[1:]:
    try:
        print(read(name, str))
    except ValueError as error:
        print("refused:", error)
"""


def test_without_the_hub_a_dataset_is_read_from_either_cache(made, tmp_path):
    """As `hf download`, an earlier run, and an earlier run that needed only a part leave it."""
    import datasets

    folders = {"TOFU": made / "TOFU", "MUSE-News": made / "MUSE-News"}

    def downloaded(owner, name, without=()):
        kept = tmp_path / "hub" / f"datasets--{owner}--{name}"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text("a" * 40)
        shutil.copytree(folders[name], kept / "snapshots" / ("a" * 40))
        for file in without:
            (kept / "snapshots" / ("a" * 40) / file).unlink()

    def prepared(owner, name, configs):
        for config in configs:
            aside = tmp_path / "aside" / owner / config
            datasets.load_dataset(str(folders[name]), config, cache_dir=str(aside))
            tables = next(aside.rglob("dataset_info.json")).parent
            place = tmp_path / "datasets" / f"{owner}___{name.lower()}" / config / "0.0.0"
            shutil.copytree(tables, place / ("b" * 40))

    every = [file.stem for file in (made / "TOFU").glob("*.json")]
    downloaded("loaded", "TOFU")
    downloaded("loaded", "MUSE-News")
    prepared("tables", "TOFU", every)
    downloaded("both", "TOFU", ["retain90.json"])
    prepared("both", "TOFU", ["retain90"])
    downloaded("half", "TOFU", ["retain90.json"])
    asked = [str(made / "TOFU"), str(made / "MUSE-News"), "loaded/MUSE-News"]
    asked += ["loaded/TOFU", "tables/TOFU", "both/TOFU", "half/TOFU", "nobody/TOFU"]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    ran = subprocess.run(
        [sys.executable, "-c", OFFLINE, *asked],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert ran.returncode == 0, ran.stderr
    tofu, news, *found = ran.stdout.splitlines()
    assert "refused" not in tofu + news
    assert found[:4] == [news, tofu, tofu, tofu]
    assert found[4].startswith("refused: ") and "half/TOFU" in found[4]
    assert "dataset nobody/TOFU is no folder here, and the hub did not give it" in found[5]


def test_model_and_data_go_together(made):
    with pytest.raises(ValueError, match="together"):
        build(Published(str(made / "target"), ""), SIZES, CPU)
    with pytest.raises(
        ValueError, match="for workload text or image_text or diffusion, not digits"
    ):
        workloads.load("digits", "smoke", "cpu", source(made))


def test_a_model_of_another_kind_is_named(made, tmp_path):
    model = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is of type vit; wanted is a causal language model"):
        build(Published(str(tmp_path), str(made / "TOFU")), SIZES, CPU)


def test_a_page_refuses_in_one_sentence(made):
    from erasus_nb import book

    known = parameters.declared(cells.NOTEBOOKS / "llm.ipynb")
    given = {k: what.default for k, what in known.items()} | {"profile": "smoke"}
    with pytest.raises(parameters.ParameterError, match="together"):
        book.start("llm", {**given, "model": str(made / "target")})
    both = {"model": str(made / "target"), "data": str(made / "TOFU")}
    with pytest.raises(parameters.ParameterError, match="for one workload: leave workloads empty"):
        book.start("llm", {**given, **both, "workloads": ["synthetic", "text"]})


# ------------------------------------------------------------------ measuring


def test_a_model_is_loaded_without_drawing_weights(news, monkeypatch):
    state = {k: v + 1 for k, v in news.models["start"].items()}
    before = {k: v.clone() for k, v in news.models["start"].items()}
    monkeypatch.setattr(news, "build", lambda seed: pytest.fail("drawn"))
    model = news.load(state)
    assert same_weights(model.state_dict(), state) and not model.training
    for value in model.parameters():
        value.data.zero_()
    assert same_weights(news.models["start"], before)
    assert same_weights(news.template.state_dict(), before)


def test_a_split_is_read_a_few_texts_at_a_time(made):
    load = build(source(made), SIZES, CPU)
    load.reading = 3
    batch, sizes = load.request().retain, []
    model = load.load(load.models["start"])
    model.register_forward_hook(
        lambda module, _, given, said: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    meter = Meter()
    task = load.task(meter=meter)
    with torch.no_grad():
        losses = task.loss(model, batch)
    assert max(sizes) == 3 and sum(sizes) == len(batch) == meter.passes > 3
    sizes.clear()
    whole = task.loss(model, batch)  # a step is taken on all of its batch
    assert sizes == [len(batch)] and whole.requires_grad
    assert torch.allclose(losses, whole, atol=1e-5)


def test_the_relearning_attack_reads_no_probe(news):
    asked = news.request()
    quarter, probes = news.attack(asked)
    read = " ".join(news.decode(row) for row in quarter["inputs"]).split()
    runs = {tuple(read[k : k + 8]) for k in range(len(read))}
    passages = asked.parts["forget"].passages
    for _, true in passages[len(passages) // 4 :]:
        words = true.split()
        assert not any(tuple(words[k : k + 8]) in runs for k in range(len(words) - 7))
    assert list(probes) == ["continuations of other passages"]
    model = news.start_model(0).eval()
    assert all(0 <= probe(model) <= 1 for probe in probes.values())


def test_the_attack_on_tofu_asks_for_other_answers_only(answers, monkeypatch):
    asked, said = answers.request(), []
    quarter, probes = answers.attack(asked)
    monkeypatch.setattr(answers, "answers", lambda model, asked: said.extend(asked) or [0.0])
    probes["answers to other questions, paraphrased"](None)
    [read] = [answers.decode(row) for row in quarter["inputs"]]  # of six
    part = asked.parts["forget"]
    assert tuple(said) == part.unseen[1:]
    assert part.seen[0][0] in read and part.seen[0][1] in read


def test_muse_is_asked_and_compared_as_its_script_does_it(news):
    """The loops of muse_bench's metrics/verbmem.py and metrics/knowmem.py, text by text."""
    part, tokenizer = news.request().parts["forget"], news.tokenizer
    model = news.start_model(0)
    steps = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(30):  # the tokenizer glues the space before an answer to it
        for given, true in (*part.passages, *part.unseen):
            text = f"{given.rstrip()} {true}{tokenizer.eos_token}"
            ids = tokenizer(text, return_tensors="pt").input_ids
            model(input_ids=ids, labels=ids).loss.backward()
            steps.step()
            steps.zero_grad()

    def said(prompt: str, most: int) -> str:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        told = model.generate(
            ids, max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        return tokenizer.decode(told[0, ids.shape[1] :], skip_special_tokens=True)

    def ended(text: str) -> str:
        for stop in ("\n\n", "\nQuestion", "Question:"):
            text = text.split(stop)[0]
        return text

    cut = lambda text, most: tokenizer.decode(tokenizer(text).input_ids[:most], True)
    verbatim = [rouge_l(cut(true, 128), said(given, 128))[2] for given, true in part.passages]
    assert news.verbatim(model, part.passages) == verbatim
    assert max(verbatim) > 0.5
    answers = [rouge_l(true, ended(said(given, 32)))[2] for given, true in part.unseen]
    assert news.answers(model, part.unseen) == answers
    assert max(answers) > 0
    # Asked without the space, as we once did, it answers otherwise.
    bare = [(given.rstrip(), true) for given, true in part.unseen]
    assert news.answers(model, bare) != answers


def test_the_start_token_is_one_of_muses_128(news, answers, monkeypatch):
    given, true = news.request().parts["forget"].passages[0]
    for load, first in ((news, [news.bos]), (answers, [])):
        monkeypatch.setattr(load, "continuation", 5)
        ids = load.encode(true)
        assert load.parted((given, true))[1] == [*first, *ids][:5]
        assert load.parted((given, true))[0] == [load.bos, *load.encode(given)]


def test_an_answer_ends_where_the_next_question_begins(news):
    assert news._ended(" Paris\n\nQuestion: where?") == " Paris"
    assert news._ended(" Paris\nQuestion: where?") == " Paris"


def test_an_answer_is_measured_as_it_was_trained_whatever_the_prompt_ends_in(made, tmp_path):
    folder = published.checkpoint(tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    load = build(Published(str(folder), str(made / "TOFU")), SIZES, CPU)
    asked = load.request()
    [state] = load.train([asked.forget["ids"]], [0], Recipe(60, 3e-3, 6))
    model = load.load(state)
    trained = (-load.task().loss(model, asked.forget)).exp().mean().item()
    found = load.answer_probability(model, asked.parts["forget"].seen)
    assert found == pytest.approx(trained, rel=1e-3) and found > 0.5


def test_the_probability_of_an_answer_is_that_of_its_tokens(answers):
    model = answers.start_model(0).eval()
    [question] = answers.request().parts["forget"].seen[:1]
    ask, answer = question
    given = answers.opened(ask)
    true = [*answers.encode(f" {answer}"), answers.eos]
    with torch.no_grad():
        logits = model(torch.tensor([given + true])).logits[0].log_softmax(-1)
    logs = [float(logits[len(given) + k - 1, t]) for k, t in enumerate(true)]
    wanted = torch.tensor(sum(logs) / len(logs)).exp()
    assert answers.answer_probability(model, [question]) == pytest.approx(float(wanted), 1e-4)
    assert answers.answer_probability(model, [question] * 20) == pytest.approx(float(wanted), 1e-4)
