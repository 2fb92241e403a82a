"""Import and export as an operator runs them: the round trip, and every way of running an import again."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cli.lines import SAMPLE, by_chat, line, read, to_the_millisecond, written
from tests.cli.program import Program

LONG = [
    line(f"chat {number // 1_000 if number % 3 else number % 50}", f"message {number} of a longer file")
    for number in range(6_000)
]
"""Six chats in many batches, one after the other, and among them fifty that take turns and never fill a batch."""


def exported(program: Program, token: str) -> list[dict[str, object]]:
    """All that an export of the application has."""
    return read(program.succeed("export", token).output)


def test_an_export_of_the_imported_sample_is_the_sample(sampled: Program) -> None:
    """All three sources come out as they went in: order, senders, bodies, and times to the millisecond."""
    sample = read(SAMPLE.read_bytes())
    assert to_the_millisecond(exported(sampled, sampled.token)) == to_the_millisecond(sample)
    sampled.succeed("check")


def test_an_export_imported_under_another_name_exports_the_same_bytes(sampled: Program) -> None:
    """Nothing is lost on a second way through, and the same messages make the same file."""
    first = sampled.token
    sampled.succeed("export", first, "--output", "first.ndjson.gz")
    second = sampled.succeed("import", "first.ndjson.gz").text
    assert second != first
    sampled.succeed("export", second, "--output", "second.ndjson.gz")
    assert (sampled.folder / "second.ndjson.gz").read_bytes() == (sampled.folder / "first.ndjson.gz").read_bytes()


def test_a_second_import_of_a_file_adds_nothing(sampled: Program) -> None:
    """The same command again finds everything, says so in one line, and names the same application."""
    again = sampled.succeed("import", str(SAMPLE))
    assert again.output.decode() == sampled.token + "\n"
    [summary] = again.lines
    assert summary.startswith("0 messages imported, 1,801 were there already; 0 chats opened, 40 were there already; ")
    assert sampled.messages() == 1_801


def test_an_import_killed_again_and_again_ends_with_exactly_the_file(program: Program) -> None:
    """Killed by SIGKILL at three places and run once more, it holds each message once, in the file's order."""
    content = written(LONG)
    for lines, recorded in ((1_500, 500), (3_300, 1_500), (5_400, 2_500)):
        killed = program.interrupt(signal.SIGKILL, written(LONG[:lines]), recorded, "import", "-", "--name", "long")
        assert killed.code == -signal.SIGKILL
        assert recorded <= program.messages() < lines
    token = program.succeed("import", "-", "--name", "long", given=content).text
    assert exported(program, token) == by_chat(LONG)
    program.succeed("check")


def test_an_interrupted_import_says_so_in_one_line(program: Program) -> None:
    """Ctrl-C ends it with code 1 and no traceback, even while it waits for a pipe."""
    stopped = program.interrupt(signal.SIGINT, written(LONG), 500, "import", "-", "--name", "long")
    assert stopped.refusal() == "chat-system: Interrupted. The same command goes on where this one stopped."
    assert 500 <= program.messages() < len(LONG)
    assert program.run("check").code == 0


def test_search_is_ready_when_an_import_ends(sampled: Program) -> None:
    """Nothing waits for the index, which knows every message."""
    with sampled.rows() as rows:
        assert rows.execute("SELECT count(*) FROM search_queue").fetchone() == (0,)
        assert rows.execute("SELECT count(*) FROM search_behind").fetchone() == (0,)
        found = rows.execute(
            """SELECT count(*) FROM search WHERE search MATCH '"ubu" AND "unt" AND "ntu"'"""
        ).fetchone()
        there = rows.execute("SELECT count(*) FROM messages WHERE instr(coalesce(folded, body), 'ubuntu')").fetchone()
    assert found >= there > (50,)


def test_the_file_names_the_application_unless_told_otherwise(program: Program) -> None:
    """--name finds the application of that name again, whichever file made it; so does --application its token's."""
    for file in ("support.ndjson.gz", "other.json"):
        (program.folder / file).write_bytes(written([line()]))
    token = program.succeed("import", "support.ndjson.gz").text
    assert program.succeed("import", "other.json", "--name", "support").text == token
    assert program.succeed("import", "other.json", "--application", token).text == token
    with program.rows() as rows:
        assert rows.execute("SELECT name FROM applications").fetchall() == [("support",)]


def test_bad_lines_are_reported_by_number_and_the_good_ones_imported(program: Program, tmp_path: Path) -> None:
    """The exit code is 1; after twenty reports the rest is only counted, and all are in the summary."""
    bad = [line(extra=1)] * 30
    (tmp_path / "some.ndjson").write_bytes(written([line(body="a"), *bad, line(body="b")]) + b'{"chat": \x00')
    ended = program.run("import", "some.ndjson")
    assert ended.code == 1
    assert ended.lines[:20] == [f"line {number}: Object contains unknown field extra" for number in range(2, 22)]
    assert ended.lines[20] == "Further lines are only counted."
    assert "2 messages imported" in ended.lines[21]
    assert "31 bad lines left out" in ended.lines[21]
    assert len(ended.lines) == 22
    assert [one["body"] for one in exported(program, ended.text)] == ["a", "b"]
