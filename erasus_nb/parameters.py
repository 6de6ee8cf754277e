"""A notebook's parameters: what its cell declares, and whether what it was given fits.

papermill only warns about an unknown name and then runs the defaults, and it hands lists
over as text. So the first cell after the parameters checks, before any work.
"""

from __future__ import annotations

import ast
import json
import symtable
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import ROOT, cells


class ParameterError(ValueError):
    """A parameter is wrong; the message is one sentence that says what is allowed."""

    def _render_traceback_(self) -> list[str]:
        # Jupyter prints this instead of a stack trace: the reader needs the sentence.
        return [f"ParameterError: {self}"]


class Declared(NamedTuple):
    """One line of a parameters cell: its type as written, its default, its comment."""

    type: str
    default: Any
    help: str


def _cells(path: Path, tag: str) -> list[str]:
    found = cells.code_cells(json.loads(path.read_text("utf-8")))
    return [cells.text_of(cell) for _, cell in found if tag in cells.tags_of(cell)]


def declared(path: str | Path) -> dict[str, Declared]:
    """What the notebook's parameters cell declares, by name, in its order.

    Raises:
        ParameterError: the notebook has no parameters cell, or it holds more than
            annotated one-line assignments of plain values.
    """
    found = _cells(Path(path), "parameters")
    if len(found) != 1:
        raise ParameterError(f"{path}: {len(found)} cells are tagged parameters, not one")
    lines, names = found[0].splitlines(), {}
    for node in ast.parse(found[0]).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            raise ParameterError(f"{path}: line {node.lineno} is no annotated assignment")
        comment = lines[node.end_lineno - 1][node.end_col_offset :].strip()
        names[node.target.id] = Declared(
            ast.unparse(node.annotation), ast.literal_eval(node.value), comment.lstrip("# ").strip()
        )
    return names


def strategies_in(path: str | Path) -> list[str]:
    """Names of the strategies that a notebook defines, in order."""
    names = []
    for source in _cells(Path(path), "strategy"):
        for node in ast.parse(source).body:
            marks = getattr(node, "decorator_list", [])
            called = [
                m.func.id for m in marks if isinstance(m, ast.Call) and isinstance(m.func, ast.Name)
            ]
            if "strategy" in called:
                names.append(node.name)
    return names


def convert(name: str, value: Any, what: Declared) -> Any:
    """One value as its declared type; a list may come as text (`["a"]`, `a,b` or `a`).

    Raises:
        ParameterError: the value is of another type.
    """
    if value is None and what.default is None:
        return None
    if what.type == "list":
        if isinstance(value, str):
            text = value.strip()
            try:
                value = ast.literal_eval(text) if text.startswith("[") else text.split(",")
            except (ValueError, SyntaxError):
                raise ParameterError(f"{name} is not a list: {text!r}") from None
            value = [v.strip() if isinstance(v, str) else v for v in value if v != ""]
        if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            return list(value)
        raise ParameterError(f'{name} must be a list of names, such as ["a", "b"]; got {value!r}')
    if what.type == "bool":
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if isinstance(value, bool):
            return value
        raise ParameterError(f"{name} must be True or False; got {value!r}")
    if what.type == "int":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ParameterError(f"{name} must be a whole number; got {value!r}")
    if what.type == "float":
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise ParameterError(f"{name} must be a number; got {value!r}")
    if isinstance(value, str):
        return value
    raise ParameterError(f"{name} must be text; got {value!r}")


def check_names(given: Mapping[str, Any], path: str | Path) -> None:
    """Refuse names that the notebook does not declare."""
    known = declared(path)
    strange = sorted(set(given) - set(known))
    if strange:
        raise ParameterError(f"there is no parameter {strange[0]!r}; there are {', '.join(known)}")


def _assigned(namespace: Mapping[str, Any]) -> set[str]:
    """Names that the kernel's executed cells assign, start-up files left out.

    IPython keeps the cells in `In`; where it kept none, every name counts.
    """
    executed = [source for source in namespace.get("In", ()) if source]
    if not executed:
        return set(namespace)
    assigned = set()
    for source in executed:
        try:
            table = symtable.symtable(source, "cell", "exec")
        except SyntaxError:
            continue  # it did not run, so it assigned nothing
        assigned |= {s.get_name() for s in table.get_symbols() if s.is_assigned()}
    return assigned


def check_notebook(name: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Check a running notebook's namespace against its parameters cell.

    Only the first call in a kernel looks for unknown names: later, a reader's own variables
    are there too, and that is fine. Names from a user's IPython profile or $PYTHONSTARTUP
    are none of the notebook's.

    Args:
        name: The notebook, e.g. "gradient".
        namespace: Its `globals()`; converted values are written back.

    Returns:
        The parameters by name, converted.

    Raises:
        ParameterError: an unknown name or a wrong type.
    """
    path = ROOT / "notebooks" / f"{name}.ipynb"
    known = declared(path)
    plain = (str, int, float, bool, list, dict, tuple, type(None))
    if not namespace.get("_parameters_checked"):
        jupyter = {"In", "Out", "exit", "quit", "open"}
        assigned = _assigned(namespace) - jupyter
        check_names(
            {
                k: v
                for k, v in namespace.items()
                if k in assigned and isinstance(v, plain) and not k.startswith("_")
            },
            path,
        )
    values = {k: convert(k, namespace.get(k, what.default), what) for k, what in known.items()}
    namespace.update(values, _parameters_checked=True)
    return values


def check_device(device: str) -> None:
    """Refuse a device that there is not, here or at all.

    Raises:
        ParameterError: it is neither "cpu" nor "cuda", or this machine has no usable GPU.
    """
    import torch  # here: commands that only build the site do without

    one_of("device", device, ("cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device is cuda, but this machine has no usable GPU; use cpu")


def one_of(name: str, value: str, allowed) -> str:
    """The value, if it is allowed. Raises ParameterError with what is."""
    if value not in allowed:
        raise ParameterError(f"there is no {name} {value!r}; there are {', '.join(allowed)}")
    return value
