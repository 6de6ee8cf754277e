"""Papers that pages cite: plain links in their text, and the list at a page's end.

A page cites with a Markdown link, `[Kurmanji et al. (2023)](https://arxiv.org/abs/2302.09880)`,
which JupyterLab and the site show alike. The text and the address are those of an entry of
`references.bib`, and a test compares them.
"""

from __future__ import annotations

import re
from functools import cache

from pybtex.backends.html import Backend
from pybtex.database import BibliographyData, Entry, parse_file
from pybtex.plugin import find_plugin

from . import ROOT, cells

#: An author-year link, alone or inside brackets: text, address.
_CITATION = re.compile(r"\[([^\][]+?(?: \(\d{4}\)|, \d{4}))\]\((https?://[^)\s]+)\)")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@cache
def entries() -> BibliographyData:
    """Everything in `references.bib`, by key."""
    return parse_file(ROOT / "references.bib", "bibtex")


def address(entry: Entry) -> str | None:
    """Where a paper can be read: arXiv if it is there, else its own address; None if unknown."""
    fields = entry.fields
    arxiv = fields.get("eprint") or next(
        (found[1] for f in ("note", "journal") if (found := _ARXIV.search(fields.get(f, "")))),
        None,
    )
    if arxiv:
        return f"https://arxiv.org/abs/{arxiv}"
    return fields.get("url") or (f"https://doi.org/{fields['doi']}" if "doi" in fields else None)


def authors(entry: Entry) -> str:
    """The authors as a sentence names them: "Kurmanji et al.", "Cao and Yang"."""
    names = [
        " ".join(str(part) for part in person.rich_prelast_names + person.rich_last_names)
        for person in entry.persons.get("author", entry.persons.get("editor", ()))
    ]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)


def citations(page: str) -> list[tuple[str, str]]:
    """Every citation in a page's prose, in order: (text, address)."""
    cells_of_text = (c for c in cells.notebook(page)["cells"] if c["cell_type"] == "markdown")
    return [found for cell in cells_of_text for found in _CITATION.findall(cells.text_of(cell))]


def cited(page: str) -> list[str]:
    """Keys of the papers that a page cites, in the order of the list at its end."""
    by_address = {address(entry): key for key, entry in entries().entries.items()}
    by_address.pop(None, None)
    found = {by_address[where] for _, where in citations(page) if where in by_address}
    return sorted(found, key=lambda key: (authors(entries().entries[key]).lower(), key))


def listed(page: str) -> str:
    """The papers that a page cites as an HTML list, each linked to where it can be read."""
    style, html = find_plugin("pybtex.style.formatting", "plain")(), Backend("utf-8")
    lines = []
    for key in cited(page):
        entry = entries().entries[key]
        [formatted] = style.format_entries([entry])
        text, where = formatted.text.render(html), address(entry)
        if where not in text:
            text += f' <a href="{where}">{where.removeprefix("https://")}</a>'
        lines.append(f"<li>{text}</li>")
    return f"<ul>{''.join(lines)}</ul>"
