"""Export: what is in it, what chats are called, and where it goes."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import pytest

from chat_system.model import NAME_MAX_CHARACTERS, MessageEdit, NewChat, NewMessage, Window
from chat_system.transfer.exporting import ChatNames
from tests.cli.lines import SAMPLE, line, read, written
from tests.cli.program import Program
from tests.cli.target import Target
from tests.conftest import BuildHouse, Connect, only
from tests.eventually import eventually


async def open_chats(target: Target, *titles: str | None) -> None:
    """A chat of each title, with one message that names the chat's number."""
    for number, title in enumerate(titles, 1):
        await target.system.open_chat(target.application, NewChat(title))
        await target.system.post_message(target.application, number, NewMessage(f"of {number}"))


async def test_deleted_messages_are_left_out_and_edited_ones_have_their_new_body(target: Target) -> None:
    """Tombstones have nothing to export; an edit keeps its message's place and time."""
    await target.take([line(body=body) for body in ("first", "second", "third")])
    await target.system.delete_message(target.application, 1, 2)
    await target.system.edit_message(target.application, 1, 3, MessageEdit(body="third, mended"))
    assert await target.holds() == [line(body="first"), line(body="third, mended")]


async def test_a_chat_of_more_than_a_page_comes_whole(target: Target) -> None:
    """Neither the ends of pages nor tombstones at them lose or repeat a message."""
    await target.take([line(body=f"message {number}") for number in range(1, 602)])
    for number in (200, 201, 400, 601):
        await target.system.delete_message(target.application, 1, number)
    assert [one["body"] for one in await target.holds()] == [
        f"message {number}" for number in range(1, 602) if number not in (200, 201, 400, 601)
    ]


async def test_chats_without_title_or_with_the_same_are_kept_apart(target: Target) -> None:
    """An import of the export makes as many chats, also where a title looks like a made-up name."""
    await open_chats(target, "same", None, "same", "same (3)", "same", "chat 7", None, "chat 2")
    held = await target.holds()
    assert [(one["chat"], one["body"]) for one in held] == [
        ("same", "of 1"),
        ("chat 2", "of 2"),
        ("same (3)", "of 3"),
        ("same (3) (4)", "of 4"),
        ("same (5)", "of 5"),
        ("chat 7", "of 6"),
        ("chat 7 (7)", "of 7"),
        ("chat 2 (8)", "of 8"),
    ]


async def test_names_stay_within_the_limit(target: Target) -> None:
    """What is added to the longest title makes room for itself."""
    title = "t" * NAME_MAX_CHARACTERS
    await open_chats(target, title, title, title)
    names = [one["chat"] for one in await target.holds()]
    assert names == [title, "t" * (NAME_MAX_CHARACTERS - 4) + " (2)", "t" * (NAME_MAX_CHARACTERS - 4) + " (3)"]


async def test_a_chat_is_called_the_same_in_a_later_export(target: Target) -> None:
    """Names depend on earlier chats only, so that a later export of more can be imported over an earlier one."""
    await open_chats(target, "a", "a", None)
    chats = await target.system.chats(target.application, Window())
    early = [ChatNames().name(chats[0])]
    later = ChatNames()
    assert early == [later.name(chats[0])]
    assert [later.name(chat) for chat in chats[1:]] == ["a (2)", "chat 3"]


async def test_a_chat_without_messages_is_left_out(target: Target) -> None:
    """There is no line that could say it."""
    await target.system.open_chat(target.application, NewChat("empty"))
    assert await target.holds() == []


def test_a_file_named_gz_is_gzipped_and_replaced_when_complete(filled: Program) -> None:
    """What stood under the name is replaced, and no piece is left beside it."""
    target = filled.folder / "out.ndjson.gz"
    target.write_bytes(b"old")
    ended = filled.succeed("export", filled.token, "--output", target.name)
    assert (ended.lines, ended.output) == (["4 messages exported."], b"")
    assert gzip.decompress(target.read_bytes()) == filled.succeed("export", filled.token).output
    assert [path.name for path in filled.folder.iterdir() if "out" in path.name] == [target.name]


def test_a_pipe_may_be_named_as_a_file(sampled: Program) -> None:
    """As standard output has a name, and as shells name what another program reads."""
    plain = sampled.succeed("export", sampled.token).output
    assert sampled.succeed("export", sampled.token, "--output", "/dev/stdout").output == plain


def test_a_file_that_is_replaced_stays_as_private_as_it_was(sampled: Program) -> None:
    """Its permissions are the operator's."""
    file = sampled.database.with_name("private.ndjson")
    file.touch()
    file.chmod(0o600)
    sampled.succeed("export", sampled.token, "--output", str(file))
    assert file.stat().st_size > 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_export_that_is_told_to_end_leaves_nothing_unfinished(program: Program) -> None:
    """SIGTERM in the middle: the file that was there stays, and no part of another lies beside it."""
    program.run("import", "-", "--name", "long", given=written([line(body=str(number)) for number in range(30_000)]))
    output = program.folder / "out.ndjson"
    output.write_text("an earlier export")
    process = subprocess.Popen(
        [sys.executable, "-m", "chat_system", "export", program.token, "--output", str(output)],
        env=program.environment(),
        cwd=program.folder,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stderr is not None
        while not (unfinished := list(program.folder.glob(".out.*"))):
            assert process.poll() is None, process.stderr.read()
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == b"chat-system: Interrupted.\n"
    assert output.read_text() == "an earlier export"
    assert not any(file.exists() for file in unfinished)


@pytest.mark.parametrize("start", ["-b", "--", "-h"])
def test_a_token_that_begins_with_a_dash_is_a_token(filled: Program, start: str) -> None:
    """One in 64 does, and is taken for no option, however it goes on."""
    with filled.rows() as rows:
        rows.execute("UPDATE applications SET token = ?", (start + "o" * 41,))
    assert len(read(filled.succeed("export", filled.token).output)) == 4


@pytest.mark.parametrize(
    ("file", "reason"), [("/dev/full", "No space left on device"), ("no/such.gz", "No such file or directory")]
)
def test_an_output_that_takes_no_more_is_one_line(filled: Program, file: str, reason: str) -> None:
    """A full disk, and a folder that is not there."""
    refusal = filled.run("export", filled.token, "--output", file).refusal()
    assert refusal == f"chat-system: {file} can't be written: {reason}."


def test_a_full_standard_output_is_one_line(sampled: Program) -> None:
    """Also at the interpreter's end, which would try to write the rest again."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        ended = subprocess.run(
            [sys.executable, "-m", "chat_system", "export", sampled.token],
            env=sampled.environment(),
            cwd=sampled.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == b"chat-system: Standard output can't be written: No space left on device.\n"


def test_a_reader_that_leaves_is_one_line(sampled: Program) -> None:
    """`export | head` ends with one line and code 1."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "chat_system", "export", sampled.token],
        env=sampled.environment(),
        cwd=sampled.folder,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert os.read(reading, 100).startswith(b'{"chat":"ubuntu/')
    os.close(reading)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == b"chat-system: Whoever read the output has gone: it is not complete.\n"


@pytest.mark.parametrize("token", ["unknown", "A" * 43, ""], ids=["short", "long enough", "empty"])
def test_an_unknown_token_is_one_line(filled: Program, token: str) -> None:
    """No file is made."""
    refusal = filled.run("export", token, "--output", "out.ndjson").refusal()
    assert refusal == "chat-system: No application has this token."
    assert not (filled.folder / "out.ndjson").exists()


@only("embedded", because="one process at a time has its file to itself")
async def test_an_export_works_beside_a_running_server_and_an_import_is_refused(
    serve: BuildHouse, connect: Connect
) -> None:
    """Reading is shared; for writing, the line names the process that has the database."""
    server = serve()
    client = connect(server)
    application = await client.create_application()
    chat = await client.create_chat(application["token"], title="live")
    posted = await chat.post("hello", sender="ada", metadata={"a": 1})
    program = Program(server.folder, {"sqlite_path": str(server.storage_settings()["sqlite_path"])})
    assert read(program.succeed("export", application["token"]).output) == [
        {"chat": "live", "sender": "ada", "sent_at": posted["created_at"], "body": "hello", "metadata": {"a": 1}}
    ]
    program.succeed("check")
    for command in (("import", str(SAMPLE)), ("recount",)):
        refusal = program.run(*command).refusal()
        assert "is in use by a running server" in refusal
        assert str(server.pid) in refusal


@only("stack", because="any number of processes share its servers")
async def test_an_export_and_an_import_work_beside_running_servers(serve: BuildHouse, connect: Connect) -> None:
    """What is exported is what the API shows; what is imported is shown by the API, and found."""
    server = serve()
    client = connect(server)
    application = await client.create_application()
    chat = await client.create_chat(application["token"], title="live")
    posted = await chat.post("hello", sender="ada", metadata={"a": 1})
    settings = {"mode": server.name, **server.storage_settings()}
    program = Program(server.folder, {name: str(value) for name, value in settings.items()})
    exported = [
        {"chat": "live", "sender": "ada", "sent_at": posted["created_at"], "body": "hello", "metadata": {"a": 1}}
    ]
    assert read(program.succeed("export", application["token"]).output) == exported
    program.succeed("import", "-", "--name", "copy", given=written(exported))
    copy = next(one for one in await client.get_json("/applications") if one["name"] == "copy")
    assert read(program.succeed("export", copy["token"]).output) == exported

    async def found() -> list[str]:
        return [hit["created_at"] for hit in await client.search(copy["token"], "HELLO")]

    await eventually(found, [posted["created_at"]])
