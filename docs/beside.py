"""Brings into the site what pages link to and what lies beside the documentation.

    docs/guide.md ── ../examples/web/app.py ──▶ repository/examples/web/app.py.md
    docs/index.md ── ../SECURITY.md ──────────▶ repository/SECURITY.md

Links in the pages are those of the repository, so that they work there. Here each link
that leaves the directory gets a page: of a Markdown file itself, of another file its
text, of a directory a list. MkDocs calls `on_files` and `on_page_markdown`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

# Pages that the navigation names, whether somebody links to them or not.
NAMED = ("SECURITY.md", "benchmarks/README.md", "CONTRIBUTING.md", "CHANGELOG.md")

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")

# In HTML: pictures for light and dark.
_PICTURE = re.compile(r'(?<=src=")(?!\w+:)([^"]+)|(?<=srcset=")(?!\w+:)([^"]+)')

_LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each thing that pages link to and that lies elsewhere."""
    pages = [(f"docs/{file.src_uri}", file) for file in files.documentation_pages()]
    waiting = [*NAMED]
    for source, file in pages:
        waiting += _beside(source, Path(file.abs_src_path or "").read_text())
    added = set()
    while waiting:
        target = waiting.pop()
        if target in added:
            continue
        added.add(target)
        path = ROOT / target
        uri = _uri(target)
        if path.suffix in (".svg", ".png"):
            files.append(File.generated(config, uri, abs_src_path=str(path)))
            continue
        text = _text(path, target)
        files.append(File.generated(config, uri, content=text))
        if path.suffix == ".md" or path.is_dir():
            waiting += _beside(target if path.is_file() else f"{target}/", text)
    return files


def on_page_markdown(markdown: str, page: Page, config: object, files: object) -> str:
    """Lead the links of a page to where their targets are in the site."""
    here = page.file.src_uri
    source = _source(here)

    def moved(match: re.Match[str]) -> str:
        target = _resolve(source, match[0])
        if not (ROOT / target).exists():
            return match[0]
        return os.path.relpath(_uri(target), PurePosixPath(here).parent)

    return _PICTURE.sub(moved, _LINK.sub(moved, markdown))


def _beside(source: str, text: str) -> Iterator[str]:
    """Yield what a page links to, or shows, outside of the documentation."""
    for match in (*_LINK.finditer(text), *_PICTURE.finditer(text)):
        target = _resolve(source, match[0])
        if not target.startswith(("docs/", "..")) and (ROOT / target).exists():
            yield target


def _resolve(source: str, link: str) -> str:
    """Return the path in the repository that a link in a file means."""
    return os.path.normpath(PurePosixPath(source).parent / link)


def _uri(target: str) -> str:
    """Return where something of the repository is in the site."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if (ROOT / target).is_dir():
        return f"repository/{target}/index.md"
    if target.endswith((".md", ".svg", ".png")):
        return f"repository/{target}"
    return f"repository/{target}.md"


def _source(uri: str) -> str:
    """Return what of the repository a page of the site shows."""
    if not uri.startswith("repository/"):
        return f"docs/{uri}"
    path = uri.removeprefix("repository/")
    if (ROOT / path).is_file():
        return path
    if path.endswith("/index.md"):
        return path.removesuffix("index.md") + "."
    return path.removesuffix(".md")


def _text(path: Path, target: str) -> str:
    if path.is_dir():
        names = sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in path.iterdir()
            if not entry.name.startswith((".", "__"))
            and entry.suffix in ("", ".py", ".md", ".toml", ".yaml")
        )
        return f"# {target}\n\n" + "\n".join(f"- [{name}]({name})" for name in names)
    text = path.read_text()
    if path.suffix == ".md":
        return text
    fence = "~~~~" if "```" in text else "```"
    language = _LANGUAGES.get(path.suffix, "text")
    return f"# {target}\n\n{fence}{language}\n{text}\n{fence}\n"
