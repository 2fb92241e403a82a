"""What an operator looks at and mends: settings, check, recount, migrate, openapi, help."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import msgspec
import pytest

from chat_system.settings import Settings, explain
from chat_system.web.openapi import document
from chat_system.web.routes import OPERATIONS
from tests.cli.lines import SAMPLE, line, written
from tests.cli.program import Program

SECRET = "0123456789abcdef-secret"
COMMANDS = ("serve", "migrate", "check", "recount", "settings", "openapi", "import", "export")


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        pytest.param(
            "UPDATE chats SET messages_count = 3 WHERE number = 2",
            "application 1, chat 2: messages_count is 3, there are 2",
            id="messages_count",
        ),
        pytest.param(
            "UPDATE applications SET chats_count = 1", "application 1: chats_count is 1, there are 2", id="chats_count"
        ),
        pytest.param(
            "UPDATE messages SET id = id + 1 WHERE id & 4294967295 = 2 AND id >> 32 = 1",
            "application 1, chat 1: messages are numbered from 1 to 3, there are 2",
            id="a gap in messages",
        ),
        pytest.param(
            "UPDATE chats SET number = 3 WHERE number = 2",
            "application 1: chats are numbered to 3, there are 2",
            id="a gap in chats",
        ),
        pytest.param(
            "UPDATE chats SET revision = 1 WHERE number = 1",
            "application 1, chat 1: revision is 1, the latest message has 2",
            id="a revision behind",
        ),
    ],
)
def test_check_finds_what_was_planted(filled: Program, plant: str, finding: str) -> None:
    """One line for each thing that is wrong, and code 1."""
    with filled.rows() as rows:
        assert rows.execute(plant).rowcount == 1
    ended = filled.run("check")
    assert (ended.code, ended.text, ended.lines) == (1, finding, [])


def test_a_quick_check_leaves_out_the_search_index(filled: Program) -> None:
    """And does not say of it that all is well."""
    assert filled.succeed("check").text.endswith("all counts, the search index.")
    with filled.rows() as rows:
        rows.execute(
            "UPDATE messages SET body = 'never indexed', folded = NULL WHERE id IN (SELECT min(id) FROM messages)"
        )
        rows.execute("DELETE FROM search_queue")
        rows.execute("DELETE FROM search_behind")
    ended = filled.run("check")
    assert (ended.code, "the search index" in ended.text) == (1, True)
    assert filled.succeed("check", "--quick").text.endswith("all numbers, all counts.")


def test_recount_mends_counts_and_check_agrees(filled: Program) -> None:
    """It names what it mended; the second time there is nothing to mend."""
    with filled.rows() as rows:
        rows.execute("UPDATE chats SET messages_count = 9")
        rows.execute("UPDATE applications SET chats_count = 9")
    assert filled.succeed("recount").text.splitlines() == [
        "application 1: chats_count is 9, there are 2 (mended)",
        "application 1, chat 1: messages_count is 9, there are 2 (mended)",
        "application 1, chat 2: messages_count is 9, there are 2 (mended)",
        "All counts are right now.",
    ]
    assert filled.succeed("check").text.startswith("All is well")
    assert filled.succeed("recount").text == "All counts were right."


@pytest.mark.parametrize("command", [("recount",), ("journal", "--retry", "search"), ("journal",), ("check",)])
def test_what_mends_or_looks_makes_no_database(program: Program, command: tuple[str, ...]) -> None:
    """Of a path that is misspelt nobody is told that all is well."""
    missing = program.database.with_name("misspelt.sqlite3")
    ended = program.run(*command, sqlite_path=str(missing))
    assert "There is no database at" in ended.refusal()
    assert not missing.exists()


@pytest.mark.parametrize("command", [("check",), ("migrate",)])
def test_a_database_that_is_in_use_elsewhere_is_not_called_damaged(program: Program, command: tuple[str, ...]) -> None:
    """Who believes that restores a backup, and loses what came after it."""
    with closing(sqlite3.connect(program.database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        refusal = program.run(*command).refusal()
    assert "database is locked" in refusal
    assert "damaged" not in refusal


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_without_standard_streams_does_its_work(program: Program, closed: str) -> None:
    """As some supervisors start it; what it opens is not taken for one of them."""
    command = f'exec "$0" -m chat_system recount {closed}'
    ended = subprocess.run(
        ["sh", "-c", command, sys.executable], cwd=program.folder, env=program.environment(), check=False
    )
    assert ended.returncode == 0


def test_check_finds_settings_that_open_the_server_to_everyone(filled: Program) -> None:
    """An open address without a key is wrong even where no server runs; the database is looked at all the same."""
    with filled.rows() as rows:
        rows.execute("UPDATE applications SET chats_count = 1")
    ended = filled.run("check", host="0.0.0.0")
    assert ended.code == 1
    first, second = ended.text.splitlines()
    assert first.startswith("settings: Without CHAT_ADMIN_KEY everything is open to whoever reaches 0.0.0.0.")
    assert second == "application 1: chats_count is 1, there are 2"


@pytest.mark.parametrize("command", ["check", "export"])
def test_commands_that_only_read_make_no_database(filled: Program, command: str) -> None:
    """Where there is none, they say so."""
    filled.database.unlink()
    refusal = filled.run(command, *(["A" * 43] if command == "export" else [])).refusal()
    assert refusal == f"chat-system: There is no database at {filled.database}."
    assert not filled.database.exists()


def test_migrate_makes_a_database_and_finds_it_current(filled: Program) -> None:
    """The second time there is nothing to do."""
    filled.database.unlink()
    assert filled.succeed("migrate").text == "chat.sqlite3 was brought to the newest schema."
    assert filled.succeed("migrate").text == "chat.sqlite3 has the newest schema."
    filled.succeed("check")


def test_settings_shows_values_and_where_they_are_from_and_no_secret(filled: Program) -> None:
    """A set value is from the environment, the admin key is masked, everything else is the default."""
    shown = filled.succeed("settings", admin_key=SECRET, port="9000")
    rows = {row[0]: row for row in (re.split(r"\s{2,}", one.strip()) for one in shown.text.splitlines())}
    assert rows["CHAT_PORT"][1:3] == ["9000", "environment"]
    assert rows["CHAT_HOST"][1:3] == ["127.0.0.1", "default"]
    assert rows["CHAT_ADMIN_KEY"][1:3] == ["********", "environment"]
    assert SECRET not in shown.text + shown.errors
    assert {one.variable for one in explain(Settings(), {})} <= rows.keys()


def test_settings_as_markdown_is_the_same_wherever_it_runs(filled: Program) -> None:
    """The reference has a row for each setting, with its default, whatever is set."""
    shown = filled.succeed("settings", "--markdown", admin_key=SECRET, port="9000").text.splitlines()
    assert shown[:2] == ["| variable | default | what it does |", "| --- | --- | --- |"]
    every = explain(Settings(), {})
    assert [row.split("`")[1] for row in shown[2:]] == [one.variable for one in every]
    for row, one in zip(shown[2:], every, strict=True):
        assert one.doc in row
    assert "| `CHAT_PORT` | `8080` |" in "\n".join(shown)


def test_an_unknown_setting_names_the_nearest(filled: Program) -> None:
    """Every command that reads settings refuses it in the same words."""
    wanted = "chat-system: CHAT_SQLITE_PAHT is no setting. Did you mean CHAT_SQLITE_PATH?"
    for command in (["settings"], ["check"], ["import", str(SAMPLE)], ["serve"], ["export", "token"], ["recount"]):
        assert filled.run(*command, sqlite_paht="x").refusal() == wanted


def test_openapi_prints_the_document(filled: Program) -> None:
    """The same that the server serves, as JSON to read."""
    shown = filled.succeed("openapi").text
    assert json.loads(shown) == json.loads(msgspec.json.encode(document(OPERATIONS)))
    assert shown.count("\n") > 1_000


def test_help_shows_every_command_and_each_explains_itself(filled: Program) -> None:
    """`chat-system` alone and --help list the commands; each --help says what the command's options are."""
    alone = filled.succeed().text
    assert all(f" {command} " in alone for command in COMMANDS)
    assert filled.succeed("--help").text == alone
    assert "chat-system import chat.ndjson.gz" in filled.succeed("import", "--help").text
    assert re.fullmatch(r"\d+\.\d+\.\d+", filled.succeed("--version").text)


def test_an_import_on_a_terminal_shows_how_far_it_is(program: Program) -> None:
    """Two bars with messages, rate and time left, and the summary under them."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "chat_system", "import", str(SAMPLE)],
        env=program.environment() | {"TERM": "xterm"},
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    # A terminal that its other end has closed can't be read any more.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 4096):
            shown += piece
    output, _ = process.communicate(timeout=30)
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"Importing .*100% 1,801 messages, [\d,]+/s .*left", text)
    assert re.search(r"Indexing .*100% 1,801 messages, [\d,]+/s .*left", text)
    assert "1,801 messages imported" in text
    assert len(output.decode().strip()) == 43


def test_a_database_that_is_full_ends_an_import_in_one_line_and_room_lets_it_go_on(program: Program) -> None:
    """The line says why; nothing that was recorded is lost, and the same command does the rest."""
    lines = [line(f"chat {number // 600}", "x" * 300) for number in range(6_000)]
    (program.folder / "large.ndjson").write_bytes(written(lines))
    limit = shutil.which("prlimit")
    if limit is None:
        pytest.skip("prlimit, of util-linux, limits the size of the database here")
    full = subprocess.run(
        [limit, "--fsize=1500000", sys.executable, "-m", "chat_system", "import", "large.ndjson"],
        env=program.environment(),
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    assert re.fullmatch(
        r"chat-system: The database can't be written at the moment: .+\."
        r" The same command goes on where this one stopped\.\n",
        full.stderr,
    )
    assert program.succeed("import", "large.ndjson").text
    assert program.messages() == len(lines)
    program.succeed("check")
