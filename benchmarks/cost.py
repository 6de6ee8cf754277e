"""What the book costs: prints a table of measured figures beside their targets.

    python benchmarks/cost.py [board] [language] [pairs] [images] [wing] [loop] [site] [gpu]

`board` runs every strategy and control, originals and retrained included, in a fresh process
with an empty cache, and reports processor seconds and peak memory. `language`, `pairs` and `images` do so for one
seed of the language model, of the dual encoder and of the denoiser; `wing` times every page on each of them, all
seeds, on all cores. `loop` compares strategies with a bare tensor loop that makes the same updates, alternating the two in
one process. `site` times a build of the site from published rows. `gpu` runs an unlearning step of a Llama with
more than a hundred million parameters, and of a CLIP of the size of ViT-B/32, and training and sampling of a U-Net of
more than a hundred million, in bfloat16, beside the same in a bare torch loop, and needs a GPU. Nothing here is a test: machines are noisy.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CATEGORIES = ("gradient", "parameter", "data", "ensemble", "llm", "vlm", "diffusion")
MEMORY_MIB, LOOP_RATIO, SITE_SECONDS = 1536.0, 1.3, 60.0
#: Page -> minutes that all pages take at most on the workload where it is at home.
WING_MINUTES = {"llm": 12.0, "vlm": 10.0, "diffusion": 12.0}
#: Page -> what one seed of its home workload takes at most, in processor seconds: original and
#: retrained model, the median strategy with its evaluation, and an evaluation.
SEED_SECONDS = {"llm": (60.0, 8.0, 1.5), "vlm": (70.0, 4.0, 1.0), "diffusion": (100.0, 8.0, 4.0)}

BOARD = """
import resource, sys, time
from erasus_nb import cells
from erasus_nb.benchmark import Bench
bench = Bench(sys.argv[1], "laptop", out=None, cache="")
bench.references()
print("references", time.process_time(), flush=True)
for category in sys.argv[2:]:
    for name, function in cells.strategies(category).items():
        before = time.process_time()
        rows = bench.run(function)
        status = ",".join(sorted({row.status for row in rows}))
        print(name, time.process_time() - before, status, flush=True)
print("total", time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def verdict(measured: float, target: float) -> str:
    """ "met", or by how much the target was missed."""
    return "met" if measured <= target else f"missed by {measured / target:.2f} x"


def machine(side: int = 1024) -> str:
    """How fast one thread of this machine multiplies matrices: a cost means little without."""
    import torch

    torch.set_num_threads(1)
    a, times = torch.randn(side, side), []
    for _ in range(7):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    rate = 2 * side**3 / statistics.median(times)
    return f"{rate / 1e9:.0f} GFLOP/s in float32 on one thread"


def seconds_of(function, wait=lambda: None) -> float:
    """Wall seconds of one call; `wait` returns when the device has done what it was given."""
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def alternating(ours, bare, repeats: int, wait=lambda: None) -> tuple[float, float]:
    """Median seconds of two functions that are called by turns, so that noise meets both."""
    times = [(seconds_of(ours, wait), seconds_of(bare, wait)) for _ in range(repeats)]
    return tuple(map(statistics.median, zip(*times)))


def waiting(device: str):
    """What waits until a device has done all; None, and it is said, where there is no GPU."""
    import torch

    if device != "cuda":
        return lambda: None
    if torch.cuda.is_available():
        return torch.cuda.synchronize
    print("gpu: no GPU here, nothing was measured")
    return None


def matrix_rate(device: str, dtype, side: int, wait) -> float:
    """Operations per second of the device's matrix products: the median of twenty."""
    import torch

    matrix = torch.randn(side, side, device=device, dtype=dtype)
    product = statistics.median(seconds_of(lambda: matrix @ matrix, wait) for _ in range(20))
    return 2 * side**3 / product


def board(workload: str, target: float) -> None:
    """One workload's whole board, from nothing, in one process on one thread."""
    command = [sys.executable, "-c", BOARD, workload, *CATEGORIES]
    lines = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    for line in lines[:-1]:
        name, seconds, *status = line.split()
        print(f"    {name:24s} {float(seconds):7.2f} s  {' '.join(status)}")
    _, seconds, memory = lines[-1].split()
    print(
        f"{workload}: all rows at laptop, processor seconds: {float(seconds):.1f} "
        f"(target {target:.0f}): {verdict(float(seconds), target)}"
    )
    print(
        f"{workload}: peak memory, MiB: {float(memory):.0f} "
        f"(target {MEMORY_MIB:.0f}): {verdict(float(memory), MEMORY_MIB)}"
    )


def one_seed(page: str) -> None:
    """One seed of a page's home workload, from nothing: base training, strategies, an evaluation."""
    import warnings

    from erasus_nb import cells, workloads
    from erasus_nb.benchmark import Bench

    warnings.filterwarnings("ignore")
    home = workloads.home(page)
    bench = Bench(home, "laptop", (0,), out=None, cache="")
    clock, seconds = time.process_time, {}

    def timed(what, function):
        start = clock()
        result = function()
        seconds[what] = clock() - start
        return result

    originals = timed("original", bench.originals)
    timed("retrained", bench.retrained)
    bench.references()  # once for all strategies
    model = bench.load.load(originals[0])
    for _ in range(2):  # the second one is warm
        timed("evaluation", lambda: bench.load.measure(model, bench.asked))
    runs = {}
    for category in CATEGORIES:
        for name, function in cells.strategies(category).items():
            if function.facts.form_on(home, bench.load.provides) is None:
                continue
            start = clock()
            [row] = bench.run(function, keep=False)
            runs[name] = clock() - start
            print(f"    {name:24s} {runs[name]:7.2f} s  {row.status}", flush=True)
    both = seconds["original"] + seconds["retrained"]
    middle = statistics.median(s for s in runs.values() if s > 0.5)
    for what, measured, target in zip(
        (
            "original + retrained, processor seconds",
            "a strategy with its evaluation, median, processor seconds",
            "evaluation, processor seconds",
        ),
        (both, middle, seconds["evaluation"]),
        SEED_SECONDS[page],
        strict=True,
    ):
        judged = verdict(measured, target)
        print(f"{home}: {what}: {measured:.1f} (target {target:g}): {judged}")
    print(f"{home}: the machine: {machine()}")


def wing(page: str) -> None:
    """All pages with rows on a page's home workload, at laptop, from nothing: fresh clone and cache."""
    from erasus_nb import workloads

    home, target = workloads.home(page), WING_MINUTES[page]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        command = [sys.executable, "-m", "erasus_nb", "run", "--profile", "laptop"]
        start = time.perf_counter()
        subprocess.run(
            [*command, "-p", "workloads", home],
            cwd=folder,
            env={**os.environ, "ERASUS_CACHE": str(Path(folder) / "cache")},
            check=True,
        )
        minutes = (time.perf_counter() - start) / 60
    print(
        f"wing: every page on {home}, {os.cpu_count()} cores, minutes: {minutes:.1f} "
        f"(target {target:.0f}): {verdict(minutes, target)}"
    )
    print(f"wing: the machine: {machine()}")


def loop(repeats: int = 30) -> None:
    """Strategies against bare loops with the same updates, on the smallest network, alternating."""
    import torch
    import torch.nn.functional as F

    from erasus_nb import cells, workloads
    from erasus_nb.benchmark import Bench
    from erasus_nb.measuring import strategy_seed
    from erasus_nb.training import clone, generator

    home = workloads.home("gradient")
    bench, seed = Bench(home, "laptop", (0,), out=None, cache=""), strategy_seed(0)
    original = bench.load.load(bench.originals()[0])
    parts = {
        k: (b["inputs"], b["labels"])
        for k, b in (("forget", bench.asked.forget), ("retain", bench.asked.retain))
    }

    def batches(part, draw, size=32):
        inputs, labels = parts[part]
        order = torch.randperm(len(labels), generator=draw)
        return zip(inputs[order].split(size), labels[order].split(size), strict=True)

    def bare_ascent(lr, epochs):
        model, draw = clone(original), generator("forget order", seed)
        step = torch.optim.SGD(model.parameters(), lr)
        for _ in range(epochs):
            for inputs, labels in batches("forget", draw):
                step.zero_grad(set_to_none=True)
                (-F.cross_entropy(model(inputs), labels)).backward()
                step.step()
        return model

    def bare_fine_tune(epochs):
        from erasus_nb.training import epoch_order

        model, (inputs, labels) = clone(original), parts["retain"]
        step = torch.optim.AdamW(
            model.parameters(), bench.load.sizes.recipe.lr, weight_decay=0.0, fused=True
        )
        ids = bench.asked.retain["ids"]
        for epoch in range(epochs):
            order = epoch_order(ids, epoch, ("fine_tune", seed))
            for x, y in zip(inputs[order].split(32), labels[order].split(32), strict=True):
                step.zero_grad(set_to_none=True)
                F.cross_entropy(model(x), y).backward()
                step.step()
        return model

    from erasus_nb.controls import fine_tune

    ascent = cells.strategies("gradient")["gradient_ascent"]
    epochs = round(0.25 * bench.load.sizes.recipe.epochs)
    pairs = {
        "gradient_ascent": (
            lambda: bench.unlearn(ascent, 0, {"lr": 1e-3, "epochs": 20})[0].model,
            lambda: bare_ascent(1e-3, 20),
        ),
        "fine_tune": (
            lambda: bench.unlearn(fine_tune, 0, {"share": 0.25})[0].model,
            lambda: bare_fine_tune(epochs),
        ),
    }
    _compared(pairs, repeats)


def _compared(pairs: dict, repeats: int) -> None:
    """Print the time of each strategy over that of its bare loop, the two alternating."""
    for name, (strategy, bare) in pairs.items():
        a, b = strategy().state_dict(), bare().state_dict()
        apart = max(float((a[k] - b[k]).abs().max()) for k in a)
        mine, theirs = alternating(strategy, bare, repeats)
        ratio = mine / theirs
        print(
            f"{name}: time over a bare loop's: {ratio:.2f} (target {LOOP_RATIO}): "
            f"{verdict(ratio, LOOP_RATIO)}; largest weight difference {apart:.1e}"
        )


def pair_loop(repeats: int = 5) -> None:
    """Base training of the dual encoder against a bare loop over the same CLIPModel."""
    import torch
    import torch.nn.functional as F

    from erasus_nb import workloads
    from erasus_nb.benchmark import Bench
    from erasus_nb.strategy import Split
    from erasus_nb.training import fit

    torch.set_num_threads(1)
    bench = Bench(workloads.home("vlm"), "laptop", (0,), out=None, cache="")
    load, recipe = bench.load, dataclasses.replace(bench.load.sizes.recipe, epochs=3)
    everything = load.batch(load.train_ids)

    def ours():
        model = load.make_model(0).train()
        fit(model, load.task(), Split("train", everything), recipe, 0)
        return model

    def bare():
        model = load.make_model(0).train()
        step = torch.optim.AdamW(
            model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        pixels, captions = everything["pixel_values"], everything["input_ids"]
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(everything)).split(recipe.batch_size):
                shown = torch.randint(captions.shape[1], (len(rows),))
                logits = model(
                    input_ids=captions[rows, shown], pixel_values=pixels[rows]
                ).logits_per_image
                right = torch.arange(len(rows))
                loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
                step.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                step.step()
        return model

    mine, theirs = alternating(ours, bare, repeats)
    ratio = mine / theirs
    print(
        f"base training on pairs: time over a bare loop's: {ratio:.2f} (target {LOOP_RATIO}): "
        f"{verdict(ratio, LOOP_RATIO)}"
    )


def gpu(
    device: str = "cuda", layers: int = 20, width: int = 768, repeats: int = 5, side: int = 8192
) -> None:
    """Tokens per second of an unlearning step of a large Llama, against a bare loop.

    The other arguments than the defaults are for trying the script itself on a CPU.
    """
    import torch
    import torch.nn.functional as F

    from erasus_nb import cells
    from erasus_nb.profiles import Recipe, TextSizes
    from erasus_nb.strategy import Split
    from erasus_nb.training import clone, generator
    from erasus_nb.workloads import text as language

    wait = waiting(device)
    if wait is None:
        return
    size, epochs = 32, 4
    shape = (1, 32, 32, 32, 2, 4, 2, layers, width, 12)
    sizes = TextSizes(*shape, Recipe(1, 1e-4, size), spread=0.02)
    load = language.make(sizes, torch.device(device))
    model = load.make_model(0).to(torch.bfloat16)
    asked, task = load.request(), load.task()
    ascent = cells.strategies("gradient")["gradient_ascent"]
    parameters = sum(p.numel() for p in model.parameters())
    tokens = asked.forget["inputs"].numel() * epochs

    def strategy():
        settings = {"optimizer": "adam", "lr": 1e-6, "epochs": epochs}
        parts = Split("forget", asked.forget), Split("retain", asked.retain)
        ascent(model, *parts, task, seed=0, batch_size=size, **settings)

    def bare():
        student, draw = clone(model), generator("forget order", 0)
        step = torch.optim.Adam(student.parameters(), 1e-6, fused=True)
        inputs, labels = asked.forget["inputs"], asked.forget["labels"]
        for _ in range(epochs):
            order = torch.randperm(len(inputs), generator=draw).to(device)
            for rows in order.split(size):
                logits = student(input_ids=inputs[rows], use_cache=False).logits
                targets = labels[rows][:, 1:]
                losses = F.cross_entropy(
                    logits[:, :-1].float().transpose(1, 2), targets, reduction="none"
                )
                count = (targets != language.IGNORED).sum(-1)
                step.zero_grad(set_to_none=True)
                (-(losses.sum(-1) / count).mean()).backward()
                step.step()

    strategy(), bare()  # the first calls choose kernels
    taken = alternating(strategy, bare, repeats, wait)
    ours, theirs = (tokens / seconds for seconds in taken)
    rate = matrix_rate(device, torch.bfloat16, side, wait)
    share = ours / theirs
    print(
        f"gpu: Llama, {parameters:,} parameters, bfloat16: {ours:,.0f} tokens/s, a share of "
        f"{share:.2f} of a bare loop's (target 0.90): "
        f"{'met' if share >= 0.9 else 'missed'}; 6 x parameters x tokens is "
        f"{6 * parameters * ours / rate:.2f} of the device's matrix rate "
        f"({rate / 1e12:.0f} TFLOP/s)"
    )


def gpu_pairs(
    device: str = "cuda", small: bool = False, repeats: int = 5, side: int = 8192
) -> None:
    """Pairs per second of an unlearning step of CLIP ViT-B/32's size, against a bare loop.

    The other arguments than the defaults are for trying the script itself on a CPU.
    """
    import torch
    import torch.nn.functional as F
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    from erasus_nb import cells
    from erasus_nb.profiles import Recipe
    from erasus_nb.strategy import Batch, Split
    from erasus_nb.training import clone, generator
    from erasus_nb.workloads.image_text.task import ImageTextTask

    wait = waiting(device)
    if wait is None:
        return
    few = {"num_hidden_layers": 1} if small else {}
    # The defaults of these configurations are those of ViT-B/32.
    config = CLIPConfig(text_config=CLIPTextConfig(**few), vision_config=CLIPVisionConfig(**few))
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = CLIPModel(config).to(device, dtype)
    size, count, epochs = (4, 8, 1) if small else (128, 512, 4)
    draw = generator("gpu pairs")
    captions = torch.randint(1000, 40000, (count, 1, 77), generator=draw)
    captions[:, 0, -1] = config.text_config.eos_token_id
    pairs = Batch(
        {
            "pixel_values": torch.randn(count, 3, 224, 224, generator=draw).to(device, dtype),
            "input_ids": captions.to(device),
            "captions": torch.arange(count, device=device)[:, None],
            "ids": torch.arange(count, device=device),
        }
    )
    end, bank = config.text_config.eos_token_id, pairs.take(torch.arange(4))
    task = ImageTextTask(Recipe(1, 1e-6, size), bank, end, lambda seed: None)
    ascent = cells.strategies("gradient")["gradient_ascent"]
    parameters = sum(p.numel() for p in model.parameters())

    def strategy():
        settings = {"optimizer": "adam", "lr": 1e-6, "epochs": epochs}
        parts = Split("forget", pairs), Split("retain", pairs)
        ascent(model, *parts, task, seed=0, batch_size=size, **settings)

    def bare():
        student, order = clone(model), generator("forget order", 0)
        step = torch.optim.Adam(student.parameters(), 1e-6, fused=True)
        for _ in range(epochs):
            for rows in torch.randperm(count, generator=order).to(device).split(size):
                logits = student(
                    input_ids=pairs["input_ids"][rows, 0], pixel_values=pairs["pixel_values"][rows]
                ).logits_per_image
                right = torch.arange(len(rows), device=device)
                loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
                step.zero_grad(set_to_none=True)
                (-loss).backward()
                step.step()

    strategy(), bare()  # the first calls choose kernels
    taken = alternating(strategy, bare, repeats, wait)
    ours, theirs = (count * epochs / seconds for seconds in taken)
    rate = matrix_rate(device, dtype, side, wait)
    # Forward and backward: six operations for each weight and token, tower by tower.
    weights = lambda tower: sum(p.numel() for p in tower.encoder.parameters())
    patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
    work = 6 * (patches * weights(model.vision_model) + 77 * weights(model.text_model))
    print(
        f"gpu: CLIP, {parameters:,} parameters, {dtype}: {ours:,.0f} pairs/s, a share of "
        f"{ours / theirs:.2f} of a bare loop's (target 0.90): "
        f"{'met' if ours >= 0.9 * theirs else 'missed'}; its operations are "
        f"{work * ours / rate:.2f} of the device's matrix rate ({rate / 1e12:.0f} TFLOP/s)"
    )


def gpu_images(
    device: str = "cuda", small: bool = False, repeats: int = 5, side: int = 8192
) -> None:
    """Training steps and sampled images per second of a large U-Net, against bare loops.

    The other arguments than the defaults are for trying the script itself on a CPU.
    """
    import torch
    import torch.nn.functional as F
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel

    from erasus_nb.profiles import Recipe, sizes_of
    from erasus_nb.strategy import Batch, Split
    from erasus_nb.training import clone, fit, generator
    from erasus_nb.workloads import diffusion
    from erasus_nb.workloads.diffusion.process import Diffusion
    from erasus_nb.workloads.diffusion.task import DiffusionTask, Keyed

    wait = waiting(device)
    if wait is None:
        return
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    channels, pixels, width = ((16, 32), 8, 32) if small else ((192, 384, 768), 32, 512)
    attended = len(channels) - 1
    unet = UNet2DConditionModel(
        sample_size=pixels,
        in_channels=4,
        out_channels=4,
        layers_per_block=1 if small else 2,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attended),
        up_block_types=(*["CrossAttnUpBlock2D"] * attended, "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2 if small else 8,
        norm_num_groups=8,
    ).to(device, dtype)
    size, count, places = (4, 8, 5) if small else (32, 128, 20)
    # The text encoder of the laptop's own workload, made as wide as this network asks.
    sizes = dataclasses.replace(sizes_of("smoke", "diffusion"), text=width)
    made = diffusion.make(sizes, torch.device(device))
    encoder, empty = made.process.encoder.to(dtype), made.process.empty
    levels = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    process = Diffusion(levels, encoder, empty, made.process.end, places, 2.0)
    draw = generator("gpu images")
    shape = 4, pixels, pixels
    images = Batch(
        {
            "pixel_values": torch.randn(count, *shape, generator=draw).to(device, dtype),
            "prompts": made.images["prompts"][:count, :1],
            "kinds": made.images["kinds"][:count],
            "ids": torch.arange(count, device=device),
        }
    )
    recipe = Recipe(2, 1e-5, size)
    asks = made.prompts[:, 0, 0], torch.arange(len(made.prompts), device=device)
    keyed = Keyed(shape, process.levels, torch.device(device))
    task = DiffusionTask(recipe, process, keyed, asks, lambda seed: None)
    parameters = sum(p.numel() for p in unet.parameters())

    def training():
        fit(clone(unet).train(), task, Split("train", images), recipe, 0)

    def bare_training():
        model = clone(unet).train()
        step = torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=0.0, fused=True)
        for _ in range(recipe.epochs):
            for rows in torch.randperm(count).to(device).split(size):
                clean, noise = images["pixel_values"][rows], torch.randn(len(rows), *shape)
                noise, t = noise.to(device, dtype), torch.randint(1000, (len(rows),)).to(device)
                with torch.no_grad():
                    text = encoder(images["prompts"][rows, 0]).last_hidden_state
                found = model(levels.add_noise(clean, noise, t), t, text).sample
                loss = F.mse_loss(found, noise)
                step.zero_grad(set_to_none=True)
                loss.backward()
                step.step()

    text = process.encode(images["prompts"][:, 0])
    start = torch.randn(count, *shape, generator=draw).to(device, dtype)

    def sampling():
        process.sample(unet, text, start)

    @torch.no_grad()
    def bare_sampling():
        given = torch.cat([process.nothing(count), text])
        sampler = DDIMScheduler.from_config(levels.config, timestep_spacing="trailing")
        sampler.set_timesteps(places, device=device)
        found = start
        for t in sampler.timesteps:
            without, told = unet(found.repeat(2, 1, 1, 1), t, given).sample.chunk(2)
            found = sampler.step(without + 2.0 * (told - without), t, found).prev_sample

    for what, unit, done, ours, bare in (
        ("training", "steps", recipe.steps(count), training, bare_training),
        ("sampling", f"images of {places} steps", count, sampling, bare_sampling),
    ):
        ours(), bare()  # the first calls choose kernels
        mine, theirs = (done / seconds for seconds in alternating(ours, bare, repeats, wait))
        print(
            f"gpu: U-Net, {parameters:,} parameters, {dtype}, {what}: {mine:,.1f} {unit}/s, a "
            f"share of {mine / theirs:.2f} of a bare loop's (target 0.90): "
            f"{'met' if mine >= 0.9 * theirs else 'missed'}"
        )


def site() -> None:
    """Build the site of a fresh clone, nothing run, from the published rows."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        start = time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from jupyter_book.cli.main import main; main()",
                "build",
                folder,
                "-q",
                "-W",
                "--keep-going",
            ],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        if not (Path(folder) / "_build" / "html" / "index.html").is_file():
            raise RuntimeError("the build left no index.html")
    print(
        f"site: build of a fresh clone, seconds: {seconds:.1f} "
        f"(target {SITE_SECONDS:.0f}): {verdict(seconds, SITE_SECONDS)}"
    )


if __name__ == "__main__":
    asked = sys.argv[1:] or ["board", "language", "pairs", "images", "wing", "loop", "site", "gpu"]
    if "loop" in asked:
        loop()
        pair_loop()
    if "board" in asked:
        from erasus_nb.profiles import COST_TARGETS

        for name, target in COST_TARGETS.items():
            board(name, target)
    if "language" in asked:
        one_seed("llm")
    if "pairs" in asked:
        one_seed("vlm")
    if "images" in asked:
        one_seed("diffusion")
    if "wing" in asked:
        for page in WING_MINUTES:
            wing(page)
    if "site" in asked:
        site()
    if "gpu" in asked:
        gpu()
        gpu_pairs()
        gpu_images()
