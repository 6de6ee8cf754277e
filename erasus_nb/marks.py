"""What the pages say of their strategies, read from their source: neither torch nor a kernel.

The front page and the leaderboard print what a strategy needs and link to its section.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import ROOT, cells, selection

#: Needed by some, and often kept anyway: the weights at the start, or the seed that makes them.
START = "initial weights"
#: What a strategy declares to read -> the word for it in the column "needs". What is not
#: here (the examples to be forgotten, a new model) everybody has who holds the model.
NEEDED = {
    "retain": "retain set",
    "retain inputs": "retain set",
    "retain prompts": "retain set",
    "retain labels": "retain set",
    "validation": "validation set",
    "initial weights": START,
    "update log": "update log",
    "sisa shards": "shards",
    "convex head": "convex head",
}
#: Those of them that have to be kept while the original model is trained.
RECORDS = ("update log", "shards", "convex head")
#: What a strategy declares to read if it uses labels.
_LABELS = {"forget", "retain", "forget labels", "retain labels", "forgotten class"}


@dataclass(frozen=True)
class Mark:
    """What a page declares of one strategy.

    Args:
        page: The notebook that defines it.
        reads: What it declares to read, as written.
    """

    page: str
    reads: tuple[str, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        """What somebody must have to use it, besides the model and the examples to forget."""
        words = [NEEDED[read] for read in self.reads if read in NEEDED]
        words += ["labels"] if _LABELS & set(self.reads) else []
        return tuple(dict.fromkeys(words))

    @property
    def records(self) -> tuple[str, ...]:
        """What of it had to be kept during training."""
        return tuple(word for word in self.needs if word in RECORDS)


def section(name: str, page: str) -> str:
    """Address of a strategy's section on the site, from the site's root.

    Sphinx makes it from the heading, which is the strategy's name.
    """
    return f"notebooks/{page}.html#{name.replace('_', '-')}"


def _reads(node: ast.FunctionDef) -> tuple[str, ...] | None:
    for mark in node.decorator_list:
        if getattr(getattr(mark, "func", None), "id", "") == "strategy":
            given = {k.arg: k.value for k in mark.keywords}
            return tuple(ast.literal_eval(given["reads"])) if "reads" in given else ()
    return None


def _marked(page: str, sources: Iterable[str]) -> dict[str, Mark]:
    functions = (
        node
        for source in sources
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    )
    return {
        node.name: Mark(page, reads) for node in functions if (reads := _reads(node)) is not None
    }


@cache
def marks(root: Path = ROOT) -> dict[str, Mark]:
    """Strategy -> what its page declares, of every strategy page of the book."""
    found: dict[str, Mark] = {}
    for page in selection.categories(root):
        nb = json.loads((root / "notebooks" / f"{page}.ipynb").read_text("utf-8"))
        found |= _marked(page, (source for _, _, source in cells.tagged(nb)))
    return found
