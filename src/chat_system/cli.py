"""`chat-system`: the operator's commands.

Promises: what can be expected to go wrong (a setting, a file, the disk, Ctrl-C, a reader of our output that
leaves) is one clear line on standard error and an exit code: 2 for how a command was called, 1 for anything
else. A traceback means a defect.

What only some commands need is imported in them: `serve` waits for nothing that it does not use.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from chat_system import __version__, telemetry
from chat_system.errors import ChatSystemError, ConfigurationError, NotFound, Unavailable
from chat_system.settings import Settings, explain
from chat_system.terminal import OutputLost, Work, print_table, progress_of, say, settle_output, tell

if TYPE_CHECKING:
    from chat_system.model import ApplicationId
    from chat_system.ports import SetAside
    from chat_system.projector import Projector
    from chat_system.transfer.importing import Tally
    from chat_system.wiring import House

PROGRAM = "chat-system"
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What Typer makes of Ctrl-C; it is reported like any other failure."""

COMPLAINTS_MAX = 20
"""How many lines of a file are complained of one by one; the rest is counted."""

INDEX_STEP_MESSAGES = 5_000
"""How many messages an import brings into the search index at a time."""

GARBAGE_THRESHOLD = 50_000
"""Allocations between two looks for cycles. An import makes none, and looking took a sixth of its time."""

GO_ON = "The same command goes on where this one stopped."

cli = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@cli.callback(
    invoke_without_command=True,
    epilog="Settings are environment variables: `chat-system settings` lists them.\n\n"
    "Start with `chat-system serve` and open http://127.0.0.1:8080",
)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A chat backend: gapless numbers, durable acknowledgements, live events, exact search."""
    if version:
        tell(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        tell(context.get_help())


@cli.command(
    epilog="**Examples**\n\n"
    "chat-system serve\n\n"
    "CHAT_SQLITE_PATH=/var/lib/chat/chat.sqlite3 chat-system serve --port 9000",
)
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on, instead of CHAT_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port, instead of CHAT_PORT; 0 takes a free one.")
    ] = None,
) -> None:
    """Serve the API until a signal ends it.

    SIGTERM and Ctrl-C end it in order: what was accepted is answered first.
    """
    settings = Settings.from_environment(os.environ)
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    telemetry.configure_logging(settings.log_level, settings.log_format)
    from chat_system.web.server import serve as serve_until_stopped

    serve_until_stopped(settings)


@cli.command()
def work() -> None:
    """Apply what was accepted to MySQL and Elasticsearch until a signal ends it. Stack mode only.

    Start as many as you like; they share the work. SIGTERM and Ctrl-C end one in order.
    """
    settings = Settings.from_environment(os.environ)
    telemetry.configure_logging(settings.log_level, settings.log_format)
    from chat_system.worker import work as work_until_stopped

    work_until_stopped(settings)


@cli.command()
def migrate() -> None:
    """Bring the database to the newest schema.

    `serve` and `import` do so by themselves; this does it ahead of them.
    """
    from chat_system.wiring import migrate as bring_up_to_date

    settings = _settings()
    changed = bring_up_to_date(settings)
    name = settings.sqlite_path if settings.mode == "embedded" else "The database"
    tell(f"{name} {'was brought to' if changed else 'has'} the newest schema.")


@cli.command()
def check(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the search index, which takes longest.")] = False,
) -> None:
    """Look for what is wrong with settings, servers or file, numbers, counts and search index.

    Numbers have gaps, stand twice, or lie outside a chat; counts differ from what they count; the file is damaged;
    Redis and MySQL, or the search index and the messages, do not hold the same. Changes nothing and works beside
    running servers. The exit code is 1 when anything is wrong; `recount` mends counts, `reindex` stack mode's index.
    """
    from chat_system.wiring import open_house

    async def verify() -> tuple[str, Sequence[str]]:
        async with open_house(settings, shared=True) as house:
            return house.where, [f"{found.where}: {found.what}" for found in await house.verify(index=not quick)]

    settings = _settings()
    faults: list[str] = []
    try:
        settings.check_exposure()
    except ConfigurationError as error:
        faults.append(f"settings: {error}")
    where, found = asyncio.run(verify())
    faults += found
    for fault in faults:
        tell(fault)
    if faults:
        raise typer.Exit(EXIT_FAILED)
    tell(f"All is well: the settings, {where}, all numbers, all counts{'' if quick else ', the search index'}.")


@cli.command()
def recount() -> None:
    """Count all chats and messages anew and mend the counts that are wrong.

    In embedded mode stop the server first: this needs the file for itself. In stack mode it works beside
    running servers, and passes over chats of which something is not applied yet.
    """
    from chat_system.wiring import open_house

    async def mend() -> Sequence[str]:
        async with open_house(settings, must_exist=True) as house:
            return [f"{found.where}: {found.what}" for found in await house.system.recount()]

    settings = _settings()
    mended = asyncio.run(mend())
    for one in mended:
        tell(f"{one} (mended)")
    tell("All counts are right now." if mended else "All counts were right.")


@cli.command(
    epilog="**Examples**\n\nchat-system journal\n\nchat-system journal --retry search\n\n"
    "chat-system journal --discard 3/1-4711/2"
)
def journal(
    retry: Annotated[
        str | None, typer.Option(metavar="PROJECTION", help="Try again what `store` or `search` has set aside.")
    ] = None,
    discard: Annotated[
        str | None, typer.Option(metavar="POSITION", help="Forget what was set aside there. Stack mode only.")
    ] = None,
) -> None:
    """Show how far the projections are behind, and what they have set aside.

    A fact that can't be applied does not hold up the others: after a few attempts it is set aside with its
    error. Mend the cause, then let it be tried again. What can never be applied may be discarded, once readers see
    it no more: delete the message through the API first.
    """
    from chat_system.wiring import open_house

    if retry not in (None, "store", "search"):
        raise typer.BadParameter("there are two projections: store and search.", param_hint="--retry")

    async def look() -> tuple[list[tuple[str, ...]], Sequence[SetAside]]:
        # What is tried again is written: embedded mode needs the file for itself then.
        shared = retry is None or settings.mode == "stack"
        async with open_house(settings, shared=shared, must_exist=True) as house:
            if discard is not None:
                await _discard(house, discard)
            if retry is not None:
                count = await house.journal.retry(cast(Any, retry))
                say(f"{count:,} facts go back to the projection.")
            rows: list[tuple[str, ...]] = []
            for projection in house.projections:
                behind = await house.journal.backlog(projection)
                rows.append((projection, f"{behind.entries:,}", f"{behind.lag_s:,.1f} s", f"{behind.set_aside:,}"))
            return rows, await house.journal.asides()

    settings = _settings()
    rows, asides = asyncio.run(look())
    print_table(("projection", "backlog", "lag", "set aside"), rows)
    if asides:
        print_table(
            ("projection", "position", "about", "error"),
            [(aside.projection, aside.position, aside.about, aside.error) for aside in asides],
        )


async def _discard(house: House, position: str) -> None:
    if house.discard is None:
        raise ConfigurationError("`--discard` is for CHAT_MODE=stack: in embedded mode nothing is in the way.")
    discarded = await house.discard(position)
    if not discarded:
        raise NotFound(f"Nothing was set aside at {position}.")
    for aside in discarded:
        say(f"Discarded for {aside.projection}: {aside.about} ({aside.error}).")


@cli.command(epilog="**Examples**\n\nchat-system reindex\n\nchat-system reindex --shards 6")
def reindex(
    shards: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Divide the new index into so many shards.")
    ] = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove what a reindex that was killed has left behind.")
    ] = False,
) -> None:
    """Fill a new search index from MySQL and put it in the place of the old one. Stack mode only.

    Messages go on being written and searched meanwhile. The counts of every application are compared before the
    alias moves; if anything was rejected or is missing, the old index stays and the exit code is 1.
    """
    from chat_system.wiring import open_house

    async def run() -> tuple[str, int]:
        done = total = 0
        async with open_house(settings) as house:
            if house.reindex is None:
                raise ConfigurationError("`reindex` is for CHAT_MODE=stack: in embedded mode the index is in the file.")

            def tell_progress(copied: int, rows: int) -> None:
                nonlocal done, total
                done, total = copied, rows

            async with progress_of(Work("Reindexing", lambda: total, lambda: done, lambda: done)):
                return await house.reindex(tell_progress, shards=shards, discard=discard)

    settings = _settings()
    name, count = asyncio.run(run())
    tell(f"{count:,} messages are in {name}, which searches are answered from now.")


@cli.command("settings")
def list_settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference as a Markdown table.")] = False,
) -> None:
    """List every setting with its value (secrets are masked), its source and what it does."""
    if markdown:
        tell("| variable | default | what it does |\n| --- | --- | --- |")
        for one in explain(Settings(), {}):
            default = f"`{one.default}`" if one.default else "(empty)"
            tell(f"| `{one.variable}` | {default} | {one.doc} |")
    else:
        rows = [(one.variable, one.value, one.source, one.doc) for one in explain(_settings(), os.environ)]
        print_table(("variable", "value", "from", "what it does"), rows)


@cli.command(epilog="**Example**\n\nchat-system openapi > openapi.json")
def openapi() -> None:
    """Print the OpenAPI 3.1 document of the API as JSON."""
    import msgspec

    from chat_system.web.openapi import document
    from chat_system.web.routes import OPERATIONS

    tell(msgspec.json.format(msgspec.json.encode(document(OPERATIONS)), indent=2).decode())


@cli.command(
    "import",
    epilog="**Examples**\n\n"
    "chat-system import chat.ndjson.gz\n\n"
    'chat-system import forum.ndjson --name "The old forum"\n\n'
    'zstdcat dump.ndjson.zst | chat-system import - --application "$TOKEN"\n\n'
    "**A line of the file**\n\n"
    '{"chat": "general", "sender": "amira", "sent_at": "2026-01-31T12:00:00Z", "body": "Hello!"}',
)
def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE", help="NDJSON, gzipped or not; - is standard input.")],
    application: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="The application that takes the messages.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Or its name: the first import makes it. If absent, the name of the file."),
    ] = None,
) -> None:
    """Import messages from a file, with their order and times, and print the application's token.

    A line is a message: chat, sender (or null), sent_at (ISO 8601 with its offset from UTC), body and, if you
    like, metadata (an object). Each chat name becomes a chat of that title.

    Import a file as often as you like: what is there is not added twice, an import that was interrupted goes
    on, and of a file that has grown only the new lines are added. Bad lines are reported by number and left
    out; the exit code is 1 then. The database must not be in use by a server.
    """
    from chat_system.transfer.importing import default_name
    from chat_system.transfer.lines import TransferError
    from chat_system.transfer.source import STDIN

    if application is not None and name is not None:
        raise typer.BadParameter("give --application or --name, not both.")
    if application is None and name is None:
        if file == STDIN:
            raise typer.BadParameter("standard input has no name: give --name or --application.")
        name = default_name(file)
    started_at = time.monotonic()
    try:
        token, tally = asyncio.run(_import(_settings(), file, application, name or ""))
    except KeyboardInterrupt:
        raise TransferError(f"Interrupted. {GO_ON}") from None
    except Unavailable as error:
        raise TransferError(f"{_with_cause(error)} {GO_ON}") from None
    say(_summary(tally, time.monotonic() - started_at))
    tell(token)
    if not tally.complete:
        raise typer.Exit(EXIT_FAILED)


async def _import(settings: Settings, file: str, token: str | None, name: str) -> tuple[str, Tally]:
    from chat_system.transfer.importing import Importer, application_named
    from chat_system.transfer.source import open_source
    from chat_system.wiring import open_house

    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    with open_source(file) as source:
        async with open_house(settings) as house:
            if token is None:
                token = (await application_named(house.system, name)).token
            importer = Importer(house.system, await _application(house, token), Complaints())
            work = Work(
                "Importing", lambda: source.bytes_total, lambda: source.bytes_read, lambda: importer.tally.lines
            )
            async with progress_of(work):
                await importer.run(source)
            for projector in house.projectors:
                await _index(projector)
    return token, importer.tally


async def _index(projector: Projector) -> None:
    """Bring the search index up to date, so that the next server has nothing to catch up with."""
    total = (await projector.backlog()).entries
    done = 0
    async with progress_of(Work("Indexing", lambda: total, lambda: done, lambda: done)):
        while step := await projector.step(INDEX_STEP_MESSAGES):
            done += step


def _summary(tally: Tally, seconds: float) -> str:
    parts = [
        f"{tally.recorded:,} messages imported, {tally.present:,} were there already",
        f"{tally.chats_opened:,} chats opened, {tally.chats_present:,} were there already",
    ]
    if tally.bad:
        parts.append(f"{tally.bad:,} bad lines left out")
    if tally.chats_differing:
        parts.append(f"{tally.chats_differing:,} chats differ, {tally.unfit:,} of their lines left out")
    return f"{'; '.join(parts)}; {seconds:,.1f} s."


class Complaints:
    """Says what is wrong with a file, up to a number of lines."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, complaint: str) -> None:
        """Say it, or no more."""
        self._count += 1
        if self._count <= COMPLAINTS_MAX:
            say(complaint)
        elif self._count == COMPLAINTS_MAX + 1:
            say("Further lines are only counted.")


@cli.command(
    # One token of 64 begins with a dash. There are no short options that it could be taken for.
    context_settings={"ignore_unknown_options": True},
    epilog="**Examples**\n\n"
    'chat-system export "$TOKEN" --output backup.ndjson.gz\n\n'
    'chat-system export "$TOKEN" | grep -c hello',
)
def export(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The application's token.")],
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where to, instead of standard output; gzipped if the name ends in .gz."),
    ] = None,
) -> None:
    """Export an application's messages in the form that import reads.

    Chats come by number, messages in order; deleted ones are left out. Works beside a running server. A file
    appears under its name when it is complete.
    """
    from chat_system.transfer.exporting import export as write_lines
    from chat_system.transfer.exporting import open_output
    from chat_system.wiring import open_house

    async def run() -> int:
        async with open_house(settings, shared=True) as house:
            application = await _application(house, token)
            with open_output(output) as file:
                return await write_lines(house.system, application, file)

    settings = _settings()
    # Told to end, it takes its unfinished file along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    count = asyncio.run(run())
    say(f"{count:,} messages exported.")


async def _application(house: House, token: str) -> ApplicationId:
    try:
        return await house.system.open(token)
    except NotFound:
        raise NotFound("No application has this token.") from None


def _settings() -> Settings:
    """The settings of a command that reports its failures itself: the log would only repeat them."""
    settings = Settings.from_environment(os.environ)
    telemetry.configure_logging("critical", settings.log_format)
    return settings


def _with_cause(error: Unavailable) -> str:
    return error.detail if error.__cause__ is None else f"{error.detail.rstrip('.')}: {error.__cause__}."


def main() -> None:
    """The entry point of `chat-system` and `python -m chat_system`."""
    # Some supervisors start their children without; the first file that is opened would be taken for it.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be no text.
        cast(Any, stream).reconfigure(errors="backslashreplace")
    code, reason = _obey()
    if reason:
        say(f"{PROGRAM}: {reason}")
    settle_output()
    sys.exit(code)


def _obey() -> tuple[int, str]:
    """Run the command; the exit code, and what there is to say about it."""
    from chat_system.transfer.lines import TransferError

    code, reason = EXIT_FAILED, ""
    try:
        code = cli(prog_name=PROGRAM, standalone_mode=False) or 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = PROGRAM if context is None else context.command_path
        code, reason = error.exit_code, f"{error.format_message().rstrip('.')}. See {command} --help."
    except (ConfigurationError, TransferError, OutputLost) as error:
        reason = str(error)
    except Unavailable as error:
        reason = _with_cause(error)
    except ChatSystemError as error:
        reason = error.detail
    except OSError as error:
        reason = f"{error.filename or 'The system'}: {error.strerror or error}."
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        code, reason = EXIT_FAILED, "Interrupted."
    return code, reason
