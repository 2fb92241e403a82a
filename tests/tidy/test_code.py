"""How the code reads, as far as a machine can tell: sizes, names, what is left undone, and what must not be told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.tidy.tree import files, project_files, shown, texts

FILE_MAX_LINES = 500
FUNCTION_MAX_LINES = 70

# Names that say nothing: what they would name has a name of its own.
EMPTY_WORDS = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "stuff"}
EMPTY_NAMES = {"process_data", "handle_data", "do_it"}

UNDONE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

# Where packages come from is the business of whoever installs them; where this was written is nobody's.
REGISTRIES = (
    *("pypi.org", "pythonhosted.org", "npmjs.org", "npmjs.com", "docker.io", "docker.com"),
    *("ghcr.io", "quay.io", "crates.io", "proxy.golang.org", "mirrors.aliyun"),
)
MACHINE_PATHS = re.compile(r"(?<![\w./-])/(work|root|home|Users)/[\w.]")

THIS_FILE = shown(Path(__file__))
"""It has to say what no other file may say."""


@cache
def trees() -> list[tuple[str, ast.Module]]:
    """Every Python file with its syntax tree."""
    return [(shown(path), ast.parse(path.read_text("utf-8"))) for path in files(".py")]


def words(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def defined(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a file gives to something, with its line; not what it imports under its own name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


def test_the_project_is_seen() -> None:
    """The tests of this folder look at something: sources, tests, documents, and none of what is ignored."""
    seen = {shown(path) for path in project_files()}
    assert {"README.md", "pyproject.toml", "src/chat_system/ports.py", "tests/tidy/test_code.py"} <= seen
    assert not any(path.startswith((".venv/", ".git/")) or "__pycache__" in path for path in seen)


def test_files_stay_short() -> None:
    """Under 500 lines of Python, SQL or script: what outgrows that is two things."""
    long = {}
    for path in files(".py", ".sql", ".js", ".html", ".toml"):
        count = len(path.read_text("utf-8").splitlines())
        if count >= FILE_MAX_LINES:
            long[shown(path)] = count
    assert long == {}


def test_functions_fit_on_a_screen() -> None:
    """Under 70 lines, decorators and docstring included."""
    long = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in long.items() if lines >= FUNCTION_MAX_LINES} == {}


def test_names_say_something() -> None:
    """Nothing is called a helper, a manager or utils: neither files nor anything in them."""
    empty = [f"{shown(path)}" for path in project_files() if words(path.stem.replace("-", "_")) & EMPTY_WORDS]
    empty += [
        f"{path}:{line} {name}"
        for path, tree in trees()
        for name, line in defined(tree)
        if words(name) & EMPTY_WORDS or name in EMPTY_NAMES
    ]
    assert empty == []


def test_nothing_is_left_undone() -> None:
    """What is not done stands in no comment."""
    left = {path: UNDONE.findall(text) for path, text in texts() if path != THIS_FILE}
    assert {path: found for path, found in left.items() if found} == {}


def test_every_module_says_what_it_is() -> None:
    """Each Python file begins with a docstring; a file without a line of code needs none."""
    silent = [path for path, tree in trees() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_every_test_says_what_it_proves() -> None:
    """A docstring of its own on each test, ended like a sentence, and a name of several words."""
    silent = []
    for path, tree in trees():
        if not path.startswith("tests/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                docstring = ast.get_docstring(node) or ""
                if not docstring.endswith((".", "?", "!")) or node.name.count("_") < 3:
                    silent.append(f"{path}:{node.lineno} {node.name}")
    assert silent == []


@pytest.mark.parametrize("suffix", [".py", ".md", ".sql", ".toml", ".js", ".html"])
def test_text_is_plain(suffix: str) -> None:
    """UTF-8 without a byte-order mark, lines that end in a line feed and in nothing else, one at the end."""
    odd = []
    for path in files(suffix):
        content = path.read_bytes()
        text = content.decode("utf-8")
        if text and (not text.endswith("\n") or text.endswith("\n\n") or "\r" in text or text.startswith("\ufeff")):
            odd.append(shown(path))
        # Two spaces at the end of a line mean something in Markdown.
        if suffix != ".md" and ("\t" in text or any(line != line.rstrip() for line in text.split("\n"))):
            odd.append(shown(path))
    assert odd == []


def test_no_file_names_a_registry_or_a_machine() -> None:
    """Neither the host of a package registry nor a path of the machine that something was written on."""
    told = []
    for path, text in texts():
        if path == THIS_FILE:
            continue
        told += [f"{path}: {host}" for host in REGISTRIES if host in text]
        told += [f"{path}: {found[0]}" for found in MACHINE_PATHS.finditer(text)]
    assert told == []
