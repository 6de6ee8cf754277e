"""Compare two folders of rows field by field: `python benchmarks/compare.py OLD NEW`.

For changes of code that are meant to change no value: what is measured has to be equal to the
last bit. Costs, keys and where a row was made are not compared. Documents of any schema
version are read. Ends with exit code 1 where anything differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: What a row says that a change of layout may not change.
FIELDS = (
    "status",
    "reason",
    "metrics",
    "divergence_to_retrained",
    "weights_changed",
    "losses",
    "info",
    "settings",
)


def rows(folder: str) -> dict[tuple, dict]:
    """(workload, strategy, seed) -> row."""
    found = {}
    for path in sorted(Path(folder).glob("[!.]*/[!.]*.json")):
        for row in json.loads(path.read_text("utf-8"))["rows"]:
            found[path.parent.name, row["strategy"], row["seed"]] = row
    return found


def main(old: str, new: str) -> int:
    """Print what differs, and a line of counts."""
    before, after = rows(old), rows(new)
    different = [f"{key}: only in one of them" for key in sorted(before.keys() ^ after.keys())]
    common = sorted(before.keys() & after.keys())
    for key in common:
        different += [f"{key}: {f}" for f in FIELDS if before[key][f] != after[key][f]]
    for line in different[:20]:
        print(line)
    verdict = f"{len(different)} differences" if different else "equal"
    print(f"{len(common)} rows, {len(common) * len(FIELDS)} fields: {verdict}")
    return 1 if different or not common else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
