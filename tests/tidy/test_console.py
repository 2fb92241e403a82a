"""The console's sources: text never becomes HTML, nothing comes from elsewhere, and what is there is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT

FOLDER = ROOT / "src" / "chat_system" / "web" / "console"
FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
MAX_LINES = 400

DANGEROUS = re.compile(
    r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTML\w*|DOMParser|createContextualFragment|srcdoc"
    r"|eval|Function|importScripts|localStorage|document\.cookie|indexedDB)\b|setTimeout\(\s*[\"'`]|javascript:"
)
"""What would read text as HTML or as a script, or keep something for longer than the tab is open."""

NAMESPACE = "http://www.w3.org/2000/svg"
"""A name, not a place."""

PARAMETERS = re.compile(
    r"^(?: {2})?(?:export )?(?:async )?(?:function )?(?!if|for|while|switch|catch|return)#?\w+\((.+)\) \{$",
    re.MULTILINE,
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_text_becomes_html_and_nothing_outlives_the_tab(path: Path) -> None:
    """None of the ways there are in a browser is used; the policy forbids most of them as well."""
    assert DANGEROUS.findall(path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_other_host_is_named(path: Path) -> None:
    """No address of anything outside this server."""
    text = path.read_text("utf-8").replace(NAMESPACE, "")
    assert re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+", text) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_each_module_says_what_it_is_and_stays_short(path: Path) -> None:
    """A comment at its head, and fewer lines than are read in a sitting."""
    lines = path.read_text("utf-8").splitlines()
    assert re.match(r"// [A-Z].*", lines[0])
    assert len(lines) < MAX_LINES


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_parameter_has_a_type(path: Path) -> None:
    """Functions and methods that take something have a JSDoc comment above them, which a type checker reads."""
    text = path.read_text("utf-8")
    untyped = []
    for found in PARAMETERS.finditer(text):
        above = text[: found.start()].rstrip().splitlines()
        if not above or not above[-1].endswith("*/"):
            untyped.append(found[0])
    assert untyped == []


def test_the_page_has_no_script_or_style_in_it() -> None:
    """Neither elements with content nor attributes: the policy would refuse them."""
    page = (FOLDER / "index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page) == []


def test_every_export_is_used() -> None:
    """In another module, or in a test."""
    everywhere = "\n".join(path.read_text("utf-8") for path in (*SCRIPTS, *(ROOT / "tests" / "console").glob("*.py")))
    for path in SCRIPTS:
        for name in re.findall(
            r"^export (?:async )?(?:const|class|function) (\w+)", path.read_text("utf-8"), re.MULTILINE
        ):
            assert len(re.findall(rf"\b{name}\b", everywhere)) > 1, f"{path.name}: {name}"
