"""The site's second extension: what every page needs to be read anywhere.

Formulas are drawn by a script that comes with the site, so that no page asks another server
for anything and pages work from a disk. Medals are small drawings, because not every computer
has a font with them. There is one heading of the first rank on a page. With a repository's
address, notebook pages get buttons that open them on Binder and Colab; with the book's PDF
at hand, every page links to it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

from . import ROOT, book_pdf

log = logging.getLogger(__name__)

# ------------------------------------------------------------------ formulas, scripts

#: One file of MathJax 3.2.2 with all of its fonts; drawn as SVG it needs no other file.
MATHJAX = "tex-svg-full.js"


def _mathjax() -> Path:
    # The package's name is no identifier, so it cannot be imported with a statement.
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    return Path(package.origin).parent / "static" / "mathjax" / MATHJAX


def bring_formulas(app, config) -> None:
    """Sphinx `config-inited`: MathJax is one of the site's own files."""
    config.html_static_path = [*config.html_static_path, str(_mathjax())]
    config.mathjax_path = MATHJAX
    # The menu would fetch further files; the hidden MathML for screen readers stays.
    config.mathjax3_config = {"options": {"enableMenu": False}}


def drop_thebe(app) -> None:
    """Disconnect sphinx-thebe, which jupyter-book always loads.

    It starts kernels on another server, which no page here offers, and defines its constants
    twice on a page, which browsers report as an error. Its style sheet stays: every page asks
    for it already.
    """
    for handlers in list(app.events.listeners.values()):
        for handler in list(handlers):
            step = handler.handler
            if step.__module__ == "sphinx_thebe" and step.__name__ != "st_static_path":
                app.disconnect(handler.id)


# ------------------------------------------------------------------ headings, medals

#: Medal -> what it is and the colours of its disc and of its rim.
MEDALS = {
    "🥇": ("gold medal", "#f2c230", "#8a6100"),
    "🥈": ("silver medal", "#cfd4da", "#5c636b"),
    "🥉": ("bronze medal", "#dc9a5e", "#7a4315"),
}
_MEDAL = re.compile(f"({'|'.join(MEDALS)})")


def medal(sign: str) -> str:
    """A medal as a drawing of its own, the size of a letter.

    Args:
        sign: One of MEDALS.
    """
    name, disc, rim = MEDALS[sign]
    return (
        f'<svg class="medal" role="img" aria-label="{name}" viewBox="0 0 16 16">'
        f'<path d="M4 0h3l2 6H6zM12 0H9L7 6h3z" fill="#b3261e"/>'
        f'<circle cx="8" cy="10.5" r="4.9" fill="{disc}" stroke="{rim}"/></svg>'
    )


class Medals(SphinxPostTransform):
    """Medals in running text and tables become drawings; those in code stay letters."""

    default_priority = 700  # after the outputs of notebooks are in place
    formats = ("html",)

    def run(self, **_) -> None:
        """Replace the medals of one page."""
        for text in list(self.document.findall(nodes.Text)):
            if isinstance(text.parent, (nodes.literal, nodes.literal_block)):
                continue
            parts = _MEDAL.split(text)
            if len(parts) > 1:
                made = [
                    nodes.raw("", medal(part), format="html")
                    if part in MEDALS
                    else nodes.Text(part)
                    for part in parts
                    if part
                ]
                text.parent.replace(text, made)


class OutputHeadings(SphinxPostTransform):
    """Headings in outputs stand below those of the page, whose title is the only first one."""

    default_priority = 700
    formats = ("html",)

    def run(self, **_) -> None:
        """Move the headings of one page's outputs two ranks down."""
        for heading in self.document.findall(nodes.rubric):
            if "level" in heading:
                heading["level"] = min(heading["level"] + 2, 6)


def mend(app, pagename, templatename, context, doctree) -> None:
    """Sphinx `html-page-context`: lists of references are no lists to a screen reader.

    docutils calls them lists and their entries by another name than entries of a list.
    """
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


# ------------------------------------------------------------------ Binder and Colab

#: The address of a repository whose notebooks Binder and Colab can open.
REPOSITORY = re.compile(r"https://(github|gitlab)\.com/[\w.-]+/[\w.-]+")


def repository(config) -> tuple[str, str]:
    """Address and branch of the book's repository; "" and "" where none is configured.

    ERASUS_REPOSITORY and ERASUS_BRANCH come before `repository` in _config.yml.

    Raises:
        ValueError: the address is none that Binder can open.
    """
    options = config.html_theme_options
    url = os.environ.get("ERASUS_REPOSITORY") or options.get("repository_url") or ""
    url = url.strip().rstrip("/").removesuffix(".git")
    if not url:
        return "", ""
    if not REPOSITORY.fullmatch(url):
        raise ValueError(
            f"the repository is {url!r}; allowed: https://github.com/OWNER/NAME or "
            "https://gitlab.com/OWNER/NAME"
        )
    return url, os.environ.get("ERASUS_BRANCH") or options.get("repository_branch") or "main"


def offer_launch(app, config) -> None:
    """Sphinx `config-inited`: with a repository, notebook pages get launch buttons."""
    try:
        url, branch = repository(config)
    except ValueError as error:
        log.warning("no launch buttons: %s", error, type="erasus", subtype="repository")
        url = branch = ""
    options = dict(config.html_theme_options)
    options |= {"repository_url": url, "repository_branch": branch, "path_to_docs": ""}
    buttons = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
    if "//github." in url:  # Colab opens no other
        buttons["colab_url"] = "https://colab.research.google.com"
    options["launch_buttons"] = buttons if url else {}
    config.html_theme_options = options
    config.erasus_repository = f"{url}@{branch}" if url else ""


_ELSEWHERE = """\
:::{{admonition}} This page on Binder or Colab
:class: dropdown
The rocket above opens the notebook there. Binder brings everything along. Colab opens the notebook
alone: add a cell above it with these lines, run it, and restart the session.

```sh
!git clone --depth 1 --branch {branch} {url} book
!cd book && pip install --quiet -r requirements.txt
```
:::"""


def tell_how(app, docname: str, content: list[str]) -> None:
    """Sphinx `source-read`: say what a notebook needs where its button opens it."""
    if not app.config.erasus_repository or not app.env.doc2path(docname).endswith(".ipynb"):
        return
    url, branch = app.config.erasus_repository.rsplit("@", 1)
    nb = json.loads(content[0])
    text = _ELSEWHERE.format(url=url, branch=branch)
    nb["cells"].insert(
        1, {"cell_type": "markdown", "id": "elsewhere", "metadata": {}, "source": text}
    )
    content[0] = json.dumps(nb)


# ------------------------------------------------------------------ the book as PDF


def take_pdf(app, config) -> None:
    """Sphinx `config-inited`: the PDF comes with the site if it was made of what is here."""
    path = book_pdf.current(Path(app.srcdir))
    if path is not None:
        config.html_static_path = [*config.html_static_path, str(path)]
        config.erasus_pdf = path.name


def link_pdf(app, pagename, templatename, context, doctree) -> None:
    """Sphinx `html-page-context`: the PDF in the download menu and in the footer."""
    if not app.config.erasus_pdf:
        return
    url = context["pathto"](f"_static/{app.config.erasus_pdf}", 1)
    context["theme_extra_footer"] = (
        f'{context.get("theme_extra_footer", "")} <a href="{url}">This book as PDF</a>.'
    )
    for group in context["header_buttons"]:
        if group.get("label") == "download-buttons":
            group["buttons"].append(
                dict(
                    type="link",
                    url=url,
                    text="whole book .pdf",
                    tooltip="Download the whole book",
                    icon="fas fa-book",
                    label="download-book-button",
                )
            )


def setup(app):
    """Connect the extension to Sphinx."""
    app.add_config_value("erasus_pdf", "", "html")
    app.add_config_value("erasus_repository", "", "env")
    app.config.templates_path = [*app.config.templates_path, str(ROOT / "_templates")]
    drop_thebe(app)
    app.add_post_transform(Medals)
    app.add_post_transform(OutputHeadings)
    for step in (bring_formulas, offer_launch, take_pdf):
        app.connect("config-inited", step)
    app.connect("source-read", tell_how, priority=600)  # after the outputs are laid
    app.connect("html-page-context", mend)
    app.connect("html-page-context", link_pdf, priority=900)  # after the theme's buttons
    return {"version": "1", "parallel_read_safe": False}
