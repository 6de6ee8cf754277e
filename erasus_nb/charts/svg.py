"""A matplotlib figure as a light `<svg>` whose rows say what they show.

Matplotlib repeats a list of fonts at every word, writes six decimals, and places every dot
by a reference to a definition. A page of thirty charts pays for that, so all of it is written
shorter here: the picture stays the same to a tenth of a point.

A row of a chart is what carries the group id `row-0`, `row-1`, ... (`Artist.set_gid`) in the
figure. All its parts become one `<g class="row">` with a `<title>`, which browsers show under
the pointer and screen readers read. Parts with the id `hit-0`, ... are not seen: along them
the pointer meets the row. A text with the id `label-0`, ... stands among lines: the page gives
it a rim in its own colour, which interrupts what runs through.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from matplotlib.figure import Figure

_NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}
#: Size of text where an element does not say another, in points.
TEXT = 9.0
#: What an element need not say: values that SVG or the root of the picture has anyway.
_USUAL = {
    "font-size": f"{TEXT:g}px",
    "stroke-dashoffset": "0",
    "stroke-linecap": "butt",
    "stroke-width": "1.2",
}
#: The page's font, and round corners everywhere.
_DROPPED = ("font-family", "stroke-miterlimit", "stroke-linejoin")

#: A path: (letter, coordinates x, y, x, y, ...) for each of its commands.
_Commands = list[tuple[str, list[float]]]


def write(
    figure: Figure, rows: Sequence[str], colours: Mapping[str, str], salt: str, kind: str
) -> str:
    """The figure as an `<svg>` element without a size, in the page's font and text colour.

    Args:
        figure: Its artists may carry the ids `row-N` and `hit-N`, N below `len(rows)`.
        rows: What each row says, in reading order.
        colours: Colour in the figure, as "#rrggbb" -> what stands for it in the page.
        salt: Keeps the ids inside this picture apart from those of other pictures.
        kind: The element's class. "narrow" stands beside a wide drawing that says the rows
            already: its own rows have no title.
    """
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata=_NOTHING)
    root = ET.fromstring(target.getvalue())
    _without_namespaces(root)
    _plain_attributes(root, {**colours, "#000000": "currentColor"})
    _drawn_markers(root)
    _short_paths(root)
    _joined_ticks(root)
    _gathered_rows(root, rows, kind != "narrow")
    _bare(root)
    _own_ids(root, salt)
    head = {
        "class": kind,
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.get("viewBox"),
        "fill": "currentColor",
        "font-size": f"{TEXT:g}",
        "stroke-width": _USUAL["stroke-width"],
        "stroke-linejoin": "round",
        "text-anchor": _held(root),
    }
    root.attrib.clear()
    root.attrib.update(head)
    return ET.tostring(root, encoding="unicode").replace(" />", "/>")


def _held(root: ET.Element) -> str:
    """Where most texts are held, which they then need not say."""
    texts = [(text, text.get("text-anchor", "start")) for text in root.iterfind(".//text")]
    usual = max(["start", "middle", "end"], key=[anchor for _, anchor in texts].count)
    for text, anchor in texts:
        text.attrib.pop("text-anchor", None)
        if anchor != usual:
            text.set("text-anchor", anchor)
    return usual


def _without_namespaces(root: ET.Element) -> None:
    """Tags and attributes as HTML spells them; metadata and matplotlib's style sheet go."""
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
        for name in [name for name in element.attrib if "}" in name]:
            element.set(name.rsplit("}", 1)[-1], element.attrib.pop(name))
        for child in list(element):
            if child.tag.rsplit("}", 1)[-1] in ("metadata", "style"):
                element.remove(child)


def _plain_attributes(root: ET.Element, colours: Mapping[str, str]) -> None:
    """Styles as attributes, without what goes without saying; a text's place as x and y."""
    for text in root.iterfind(".//text"):
        _place(text)
    for element in root.iter():
        if element.tag == "image":  # its style is about pixels, which no attribute can say
            continue
        parts = [part.split(":", 1) for part in element.attrib.pop("style", "").split(";") if part]
        given = {name.strip(): value.strip() for name, value in parts}
        if "stroke" in given:  # matplotlib does not say the width that SVG has anyway
            given.setdefault("stroke-width", "1")
        for name, value in given.items():
            if name not in _DROPPED and _USUAL.get(name) != value:
                short = value[1:] if value.startswith("0.") else value
                element.set(name, colours.get(value.lower(), short))
        if element.tag in ("path", "use") and not element.get("id"):  # definitions have an id
            element.attrib.setdefault("fill", "currentColor")
        if element.get("fill-opacity") == "0":
            del element.attrib["fill-opacity"]
            element.set("fill", "none")


def _place(text: ET.Element) -> None:
    moves = re.findall(r"(\w+)\(([^)]*)\)", text.get("transform", ""))
    match moves:
        case [("translate", by)]:
            text.attrib |= dict(zip(("x", "y"), by.split(), strict=True))
            del text.attrib["transform"]
        case [("rotate", by)] if float(by.split()[0]) == 0:
            del text.attrib["transform"]
        case [_, *_]:
            short = lambda n: _number(float(n[0]))
            text.set("transform", re.sub(r"-?\d+\.\d+", short, text.get("transform")))
    for name in ("x", "y"):
        if text.get(name):
            text.set(name, _number(float(text.get(name))))


# ----------------------------------------------------------------------------- paths


def _number(value: float, digits: int = 1) -> str:
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return re.sub(r"^(-?)0\.", r"\1.", text) if text != "-0" else "0"


def _commands(path: str) -> _Commands:
    found: _Commands = []
    for token in re.findall(r"[A-Za-z]|-?[\d.]+(?:e-?\d+)?", path):
        if token.isalpha() and len(token) == 1:
            found.append((token, []))
        else:
            found[-1][1].append(float(token))
    return found


def _written(commands: _Commands, dx: float = 0.0, dy: float = 0.0, digits: int = 1) -> str:
    """The path moved by (dx, dy): its first point from the page's corner, the rest step by step.

    Steps begin where the rounded one before ended, so that errors do not add up.
    """
    out, last, at, start = [], "", (0.0, 0.0), (0.0, 0.0)
    for letter, numbers in commands:
        if letter in "zZ":
            out.append("z")
            at, last = start, "z"
            continue
        points = [(x + dx, y + dy) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
        if letter == "M":
            ((x, y),) = points
            at = start = (round(x, 1), round(y, 1))
            # The shape moves as a whole: its parts keep their distances.
            dx, dy = dx + at[0] - x, dy + at[1] - y
            out.append("M" + _numbers(at, 1))
            last = "M"
            continue
        steps = [round(q - p, digits) for point in points for q, p in zip(point, at, strict=True)]
        at = (at[0] + steps[-2], at[1] + steps[-1])
        if letter == "L" and not any(steps):
            continue
        flat = {(True, False): "h", (False, True): "v"}.get((steps[1] == 0, steps[0] == 0))
        letter = flat if letter == "L" and flat else letter.lower()
        said = _numbers([sum(steps)] if letter in "hv" else steps, digits)
        # A letter that is the one before goes without saying.
        if letter != last:
            out.append(letter + said)
        else:
            out.append(said if said.startswith("-") else f" {said}")
        last = letter
    return "".join(out)


def _numbers(values: Sequence[float], digits: int) -> str:
    return " ".join(_number(value, digits) for value in values).replace(" -", "-")


def _straight(commands: _Commands) -> bool:
    return [letter for letter, _ in commands] == ["M", "L"]


def _radius(commands: _Commands) -> float | None:
    """Of matplotlib's circle around the origin; None for every other shape."""
    if [letter for letter, _ in commands] != ["M", *"CCCCCCCC", "z"]:
        return None
    far = [(n[-2] ** 2 + n[-1] ** 2) ** 0.5 for _, n in commands[:-1]]
    return far[0] if max(far) - min(far) < 1e-3 else None


def _drawn_markers(root: ET.Element) -> None:
    """Every `<use>` of a marker's definition as the shape itself; equal ones in one path."""
    shapes = {}
    for parent in list(root.iter()):
        for defs in [child for child in parent if child.tag == "defs"]:
            for path in [child for child in defs if child.tag == "path"]:
                shapes[path.get("id")] = path
                defs.remove(path)
    for parent in list(root.iter()):
        uses = [child for child in parent if child.tag == "use"]
        for (name, _), same in groupby(uses, key=_kind_of_use):
            same = list(same)
            drawn = _shape(shapes[name], same)
            clip = _needed_clip(root, parent, same)
            if clip:
                drawn.set("clip-path", clip)
            parent.insert(list(parent).index(same[0]), drawn)
            for use in same:
                parent.remove(use)
        if uses:
            parent.attrib.pop("clip-path", None)


def _kind_of_use(use: ET.Element) -> tuple:
    look = sorted((k, v) for k, v in use.attrib.items() if k not in ("x", "y", "href"))
    return use.get("href").lstrip("#"), tuple(look)


def _shape(marker: ET.Element, uses: Sequence[ET.Element]) -> ET.Element:
    """One element with the marker at the places of all `uses`, which look alike."""
    look = {k: v for k, v in uses[0].attrib.items() if k not in ("x", "y", "href")}
    look |= {k: v for k, v in marker.attrib.items() if k not in ("d", "id")}
    places = [(float(use.get("x")), float(use.get("y"))) for use in uses]
    commands = _commands(marker.get("d"))
    radius = _radius(commands)
    if radius is None:
        look["d"] = "".join(_written(commands, x, y, 2) for x, y in places)
        if _straight(commands):
            look.pop("fill", None)
    elif len(uses) == 1:
        ((x, y),) = places
        circle = {"cx": _number(x), "cy": _number(y), "r": _number(radius, 2)}
        return ET.Element("circle", circle | look)
    elif "stroke" not in look:  # dots: lines without length and with round ends
        look["d"] = _dots(places)
        look["stroke"] = look.pop("fill", "currentColor")
        look |= {"stroke-width": _number(2 * radius, 2), "stroke-linecap": "round"}
        if "fill-opacity" in look:
            look["opacity"] = look.pop("fill-opacity")
    else:
        r = _number(radius, 2)
        ring = (
            f"a{r} {r} 0 1 0 {_number(2 * radius, 2)} 0a{r} {r} 0 1 0-{_number(2 * radius, 2)} 0z"
        )
        look["d"] = "".join(f"M{_numbers([x - radius, y], 1)}{ring}" for x, y in places)
    return ET.Element("path", look)


def _dots(places: Sequence[tuple[float, float]]) -> str:
    """Steps from place to place; a place that has a dot needs no second one."""
    out, at = [], None
    for x, y in dict.fromkeys((round(x, 1), round(y, 1)) for x, y in places):
        step = [x, y] if at is None else [x - at[0], y - at[1]]
        out.append(("M" if at is None else "m") + _numbers(step, 1) + "h0")
        at = x, y
    return "".join(out)


def _short_paths(root: ET.Element) -> None:
    for parent in list(root.iter()):
        for path in [child for child in parent if child.tag == "path"]:
            if re.search("[a-y]", path.get("d")):  # a marker that is written already
                continue
            commands = _commands(path.get("d"))
            seen = "stroke" in path.attrib or path.get("fill") != "none"
            if len(commands) < 2 or not seen and not _is_hit(parent):
                parent.remove(path)  # the empty ground of figure and axes
                continue
            if clip := path.attrib.pop("clip-path", None):
                if _reaches_out(_rectangle(root, clip), _corners(commands)):
                    path.set("clip-path", clip)
            if _straight(commands):
                path.attrib.pop("fill", None)
            path.set("d", _written(commands))


def _is_hit(element: ET.Element) -> bool:
    return element.get("id", "").startswith("hit-")


def _corners(commands: _Commands) -> Iterator[tuple[float, float]]:
    for _, numbers in commands:
        yield from zip(numbers[::2], numbers[1::2], strict=True)


def _rectangle(root: ET.Element, clip: str) -> tuple[float, float, float, float]:
    name = clip.removeprefix("url(#").removesuffix(")")
    (rect,) = root.findall(f".//clipPath[@id='{name}']/rect")
    x, y, wide, tall = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
    return x, y, x + wide, y + tall


def _reaches_out(box: Sequence[float], points) -> bool:
    """Whether a point lies outside of the box by more than half the width of a line."""
    x0, y0, x1, y1 = box
    return any(not (x0 - 1 < x < x1 + 1 and y0 - 1 < y < y1 + 1) for x, y in points)


def _needed_clip(root: ET.Element, parent: ET.Element, uses: Sequence[ET.Element]) -> str | None:
    clip = parent.get("clip-path")
    places = [(float(use.get("x")), float(use.get("y"))) for use in uses]
    return clip if clip and _reaches_out(_rectangle(root, clip), places) else None


def _joined_ticks(root: ET.Element) -> None:
    """All ticks of an axis that look alike as one path."""
    for axis in root.iter("g"):
        if not axis.get("id", "").startswith("matplotlib.axis"):
            continue
        parents = [(parent, child) for parent in axis.iter("g") for child in parent]
        paths = [(parent, child) for parent, child in parents if child.tag == "path"]
        kept = _merged([path for _, path in paths])
        for parent, path in paths:
            if path not in kept:
                parent.remove(path)


# ------------------------------------------------------------------------------ rows


def _gathered_rows(root: ET.Element, rows: Sequence[str], told: bool) -> None:
    """All parts of a row in one group with its title, after everything that is no row."""
    parts: dict[str, list[ET.Element]] = {}
    for parent in list(root.iter()):
        for child in list(parent):
            if re.fullmatch(r"(row|hit|label)-\d+", child.get("id", "")):
                parent.remove(child)
                parts.setdefault(child.get("id"), []).append(child)
    for number, said in enumerate(rows):
        group = ET.SubElement(root, "g", {"class": "row"})
        if told:
            group.set("role", "img")
            ET.SubElement(group, "title").text = said
        for hit in parts.get(f"hit-{number}", ()):
            shapes = [shape for shape in hit.iter() if shape.tag in ("path", "circle")]
            group.extend(ET.Element("path", {"class": "hit", "d": _track(s)}) for s in shapes)
        leaves = [leaf for part in parts.get(f"row-{number}", ()) for leaf in part.iter()]
        for part in parts.get(f"row-{number}", ()):
            group.extend(part.iterfind(".//text"))
        for label in parts.get(f"label-{number}", ()):
            for text in label.iterfind(".//text"):
                text.set("class", "label")
                group.append(text)
        marks = [leaf for leaf in leaves if leaf.tag in ("path", "circle")]
        group.append(_coloured(marks))


def _track(shape: ET.Element) -> str:
    """The line along which the pointer meets a row; the page says how broad it is."""
    if shape.tag == "circle":
        return f"M{shape.get('cx')} {shape.get('cy')}h0"
    return shape.get("d")


def _coloured(marks: Sequence[ET.Element]) -> ET.Element:
    """The marks of a row in one group that says once what most of them say."""
    group = ET.Element("g")
    for mark in marks:
        if "stroke" not in mark.attrib and "fill" in mark.attrib:
            mark.set("stroke", "none")
    for name in ("fill", "stroke"):
        values = Counter(mark.get(name) for mark in marks if name in mark.attrib)
        for value, _ in values.most_common(1):
            group.set(name, value)
            for mark in marks:
                if mark.get(name) == value:
                    del mark.attrib[name]
    group.extend(_merged(marks))
    return group


def _merged(shapes: Sequence[ET.Element]) -> list[ET.Element]:
    """Paths that look alike as one path, at the place of the first."""
    first: dict[tuple, ET.Element] = {}
    for number, shape in enumerate(shapes):
        look = tuple(sorted((k, v) for k, v in shape.attrib.items() if k != "d"))
        same = first.setdefault(look if shape.tag == "path" else (number,), shape)
        if same is not shape:
            same.set("d", same.get("d") + shape.get("d"))
    return list(first.values())


# ------------------------------------------------------------------------- last things


def _bare(root: ET.Element) -> None:
    """No group without a meaning, no white space between elements, no empty definitions."""
    for element in root.iter():
        if element.tag != "clipPath":
            element.attrib.pop("id", None)
        element.tail = None
        if not (element.text or "").strip():
            element.text = None
    used = {element.get("clip-path") for element in root.iter()}
    for parent in list(root.iter()):
        for clip in [child for child in parent if child.tag == "clipPath"]:
            if f"url(#{clip.get('id')})" not in used:
                parent.remove(clip)
    _flatten(root)
    for element in root:
        if element.get("fill") == "currentColor":  # as the root says
            del element.attrib["fill"]
    # Neighbours that look alike, as the pieces of a band, are one.
    runs = [list(run) for _, run in groupby(root, key=lambda element: element.tag == "path")]
    root[:] = [each for run in runs for each in _merged(run)]


def _flatten(parent: ET.Element) -> None:
    children: list[ET.Element] = []
    for child in parent:
        _flatten(child)
        if child.tag == "g" and not child.attrib:
            children += child
        elif child.tag not in ("g", "defs") or len(child):
            children.append(child)
    parent[:] = children


def _own_ids(root: ET.Element, salt: str) -> None:
    """Ids that no other picture of the page has."""
    new = {clip.get("id"): f"c{salt}{n}" for n, clip in enumerate(root.iter("clipPath"))}
    for element in root.iter():
        if element.get("id") in new:
            element.set("id", new[element.get("id")])
        if clip := element.get("clip-path"):
            element.set("clip-path", f"url(#{new[clip.removeprefix('url(#').removesuffix(')')]})")
