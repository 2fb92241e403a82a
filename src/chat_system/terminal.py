"""What the command line shows: results on standard output, everything else on standard error.

Nothing that came from a file or a client can steer the terminal: control characters are written as escapes.
"""

# ruff: noqa: PLC0415 - rich is for those who look

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

REFRESH_S = 0.1


class OutputLost(Exception):
    """Standard output takes no more: its reader has gone, or its disk is full."""


def tell(text: str) -> None:
    """Print a line of the result.

    Raises:
        OutputLost: it could not be written.
    """
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError as error:
        raise OutputLost("Whoever read the output has gone: it is not complete.") from error
    except OSError as error:
        raise OutputLost(f"Standard output can't be written: {error.strerror}.") from error


def say(text: str) -> None:
    """Print a line about the work, on standard error."""
    # When no one listens any more, the exit code still says how it went.
    with contextlib.suppress(OSError):
        print(_harmless(text), file=sys.stderr, flush=True)  # noqa: T201


def settle_output() -> None:
    """Let go of what could not be written, which the interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table that fits the terminal. Raises OutputLost."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for index, head in enumerate(heads):
        # The first says what the row is about: it stays whole on the narrowest terminal.
        table.add_column(head, no_wrap=index == 0)
    for row in rows:
        # Text: a value is no markup.
        table.add_row(*(Text(_harmless(cell), overflow="fold") for cell in row))
    console = Console()
    with console.capture() as captured:
        console.print(table)
    tell(captured.get().strip("\n"))


@dataclass(frozen=True)
class Work:
    """How far some work is, as a bar shows it: `done` of `total()` (None: unknown), so far `items` messages."""

    title: str
    total: Callable[[], int | None]
    done: Callable[[], int]
    items: Callable[[], int]


@contextlib.asynccontextmanager
async def progress_of(work: Work) -> AsyncIterator[None]:
    """Show a bar with rate and time left while the context is open; nothing where no one watches."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[items]:,} messages, {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        auto_refresh=False,
    )
    started_at = time.monotonic()
    task = progress.add_task(work.title, total=work.total(), items=0, rate=0.0)

    def refresh() -> None:
        items = work.items()
        rate = items / max(time.monotonic() - started_at, REFRESH_S)
        progress.update(task, total=work.total(), completed=work.done(), items=items, rate=rate, refresh=True)

    async def keep_refreshing() -> None:
        while True:
            refresh()
            await asyncio.sleep(REFRESH_S)

    with progress:
        refreshing = asyncio.create_task(keep_refreshing())
        try:
            yield
        finally:
            refreshing.cancel()
            refresh()


def _harmless(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
