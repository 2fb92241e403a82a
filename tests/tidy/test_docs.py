"""The documents say what the program does: every setting, command, route, code, metric and log line, and no other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from chat_system.cli import cli
from chat_system.settings import Settings, variable
from chat_system.telemetry import REGISTRY
from chat_system.web.documentation import PAGES
from chat_system.web.problems import STATUSES
from chat_system.web.routes import OPERATIONS
from tests.tidy.tree import ROOT, files, shown, text_of

API, OPERATING, SETTINGS = "docs/api.md", "docs/operating.md", "docs/settings.md"
COMMAND_TIMEOUT_S = 60
COMMANDS: dict[str, Any] = typer.main.get_command(cli).commands  # type: ignore[attr-defined]


def documents() -> list[Path]:
    """Every document."""
    return list(files(".md"))


def all_documents() -> str:
    """What all of them say."""
    return "\n".join(path.read_text("utf-8") for path in documents())


# Settings


def test_the_reference_of_settings_is_what_the_program_prints() -> None:
    """The whole file. To renew it: chat-system settings --markdown > docs/settings.md."""
    printed = subprocess.run(
        [sys.executable, "-m", "chat_system", "settings", "--markdown"],
        env={"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=True,
    )
    assert text_of(SETTINGS) == printed.stdout


def test_every_setting_is_in_the_reference() -> None:
    """By its variable, with the sentence that documents it."""
    for setting in fields(Settings):
        assert f"| `{variable(setting.name)}` |" in text_of(SETTINGS)
        assert setting.metadata["doc"] in text_of(SETTINGS)


def test_no_document_names_a_setting_that_does_not_exist() -> None:
    """What is read in a document can be set."""
    known = {variable(setting.name) for setting in fields(Settings)}
    named = set(re.findall(r"\bCHAT_[A-Z_]*[A-Z]\b", all_documents()))
    assert {name for name in named - known if not name.startswith("CHAT_TEST_")} == set()


# Commands


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    """In the table of commands, with each of its options."""
    row = re.search(rf"^\| `chat-system {command}\b([^`]*)`.*$", text_of(OPERATING), re.MULTILINE)
    assert row is not None, f"{OPERATING} has no row for {command}"
    for parameter in COMMANDS[command].params:
        told = (
            parameter.opts[0]
            if parameter.param_type_name == "option"
            else (parameter.metavar or parameter.name.upper())
        )
        assert told in row[0], f"{command}: {told}"


def test_no_document_names_a_command_that_does_not_exist() -> None:
    """`chat-system …` in any document is a command, or an option of the program itself."""
    named = set(re.findall(r"(?:\bbin/|`|^ *|\| )chat-system ([a-z]+)", all_documents(), re.MULTILINE))
    assert named <= set(COMMANDS)
    assert named >= {"serve", "import"}


# The API

ROUTE = re.compile(r"^\| (GET|POST|PUT|PATCH|DELETE) \| `(/[^`?]*)[^`]*` \|", re.MULTILINE)


def anonymous(path: str) -> str:
    """A path whose parameters have lost their names."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def documented_routes() -> set[tuple[str, str]]:
    """The methods and paths in the tables of the API's document."""
    return {(method, anonymous(path)) for method, path in ROUTE.findall(text_of(API))}


def test_every_route_is_documented_and_no_other() -> None:
    """The tables of docs/api.md hold exactly the methods and paths that the server answers."""
    served = {(operation.method, anonymous(operation.path)) for operation in (*OPERATIONS, *PAGES)}
    assert documented_routes() == served


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_parameter_is_documented(operation: Any) -> None:
    """Each query parameter and header that an operation takes is named in docs/api.md."""
    for parameter in operation.parameters:
        wanted = rf"[`?&\s<]{re.escape(parameter.name)}\b"
        assert re.search(wanted, text_of(API)), f"{operation.name}: {parameter.name}"


def test_every_error_code_is_documented_with_its_status_and_no_other() -> None:
    """The table of errors is the one that the server answers by."""
    rows = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", text_of(API), re.MULTILINE)
    assert {code: int(status) for status, code in rows} == {code: status for code, (status, _) in STATUSES.items()}


# Metrics and logs


def exposed() -> dict[str, tuple[str, list[str]]]:
    """Every metric by the name that a scrape shows, with its type and labels."""
    found = {}
    for collector in list(REGISTRY._collector_to_names):  # noqa: SLF001 - the registry has no other list of them
        metric: Any = collector
        (family,) = metric.describe() or metric.collect()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, list(metric._labelnames))  # noqa: SLF001 - nor the metric of its labels
    return found


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other() -> None:
    """The table of metrics is what /metrics shows."""
    rows = re.findall(r"^\| `(chat_\w+)` \| (\w+) \|([^|]*)\|", text_of(OPERATING), re.MULTILINE)
    documented = {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}
    assert documented == exposed()


def test_no_document_names_a_metric_that_does_not_exist() -> None:
    """Not in a sentence either."""
    assert set(re.findall(r"`(chat_[a-z_]+)", text_of(OPERATING))) <= set(exposed())


def log_events() -> Iterator[tuple[str, str]]:
    """Every event that the program logs, with its level."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                receiver, first = node.func.value, node.args[0]
                if isinstance(receiver, ast.Name) and receiver.id == "log":
                    assert isinstance(first, ast.Constant), f"{path}: an event is a constant"
                    yield str(first.value), "error" if node.func.attr == "exception" else node.func.attr


def test_every_event_of_the_log_is_documented_with_its_level_and_no_other() -> None:
    """An operator who meets a line finds what it means."""
    rows = re.findall(r"^\| `([a-z0-9 ]+)` \| (debug|info|warning|error) \|", text_of(OPERATING), re.MULTILINE)
    assert sorted(rows) == sorted(set(log_events()))


# Decisions, dependencies, links


def test_decisions_are_numbered_without_a_gap() -> None:
    """0001, 0002 …, each file titled with its own number."""
    adrs = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:5] for path in adrs] == [f"{number:04d}-" for number in range(1, len(adrs) + 1)]
    for path in adrs:
        assert path.read_text("utf-8").startswith(f"# {path.name[:4]}: ")


def test_decisions_that_the_code_refers_to_exist() -> None:
    """`ADR 4` in a comment leads somewhere."""
    numbers = {int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("*.md")}
    for path in files(".py", ".md", ".sql", ".toml"):
        for found in re.findall(r"\bADR (\d+)", path.read_text("utf-8")):
            assert int(found) in numbers, f"{shown(path)}: ADR {found}"


def test_every_dependency_has_its_reason() -> None:
    """What pyproject.toml asks for stands in the decision on dependencies."""
    project = tomllib.loads(text_of("pyproject.toml"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        wanted += group
    reasons = text_of("docs/adr/0011-dependencies.md")
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in wanted}
    assert {name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", reasons)} == set()


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]:\s+(\S+)|!\[[^\]]*\]\(([^)\s]+)\)", re.MULTILINE)
CODE = re.compile(r"^(```|~~~).*?^\1|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The places in a document that a link may name, by the rule of the usual forges."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} +(.*?) *#*$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=shown)
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    """To a file or folder of the project, and to a heading that it has."""
    broken = []
    for target in filter(None, (one for found in LINK.findall(CODE.sub("", path.read_text("utf-8"))) for one in found)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        if not there.exists() or not there.is_relative_to(ROOT) or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_every_document_is_linked_from_another() -> None:
    """Whoever begins at the README comes to all of them; decisions by their folder."""
    linked = {
        (path.parent / one.partition("#")[0]).resolve()
        for path in documents()
        for found in LINK.findall(path.read_text("utf-8"))
        for one in found
        if one and not re.match(r"[a-z]+:", one)
    }
    unlinked = [
        shown(path)
        for path in documents()
        if path not in linked and path.parent not in linked and path.name != "README.md"
    ]
    assert unlinked == []
