"""What the scenarios of one run share: sizes, folder, corpus, filled databases, the client's process.

Whatever is expensive is made when it is first asked for and used again: two filled databases,
the bare ASGI app, and one process in which all loads run, so that a server and its client have a core
each.

Not promised: anything that outlives the run. Only import files are kept, in a folder that was given.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from bench.api import ChatPath
from bench.bare import FixedAnswer
from bench.building import Plan
from bench.corpus import Corpus
from bench.houses import Embedded, House, Imported, Server, running, spawn_limit
from bench.measure import Wrong
from bench.stack import Stack
from bench.whole import Whole

APPLICATION = "bench"
LONG_CHAT, SEARCHED_CHAT, SHORT_CHAT = "long", "searched", "short"
INDEXING_TIMEOUT_S = 400.0

W = TypeVar("W")
R = TypeVar("R")


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Counts are messages."""

    rounds: int
    seconds: float
    warm_up_s: float
    small_database: int
    large_database: int
    searched_chat: int
    short_chat: int
    imported: int
    readers: int
    projected: int
    unapplied: int
    sustained: int
    """In each stage alone."""

    sustained_s: float
    lag_s: float
    built: bool = False
    """The large database is too large to import: it is written straight into the servers."""

    def with_large_database(self, messages: int) -> Sizes:
        """The same with a large database of so many messages, which is not imported.

        Raises:
            Wrong: its chats need more.
        """
        least = self.searched_chat + self.short_chat + self.small_database
        if messages < least:
            raise Wrong(f"a large database has at least {least:,} messages")
        return replace(self, large_database=messages, built=True)


DEFAULT = Sizes(
    rounds=5,
    seconds=1.0,
    warm_up_s=0.5,
    small_database=10_000,
    large_database=1_000_000,
    searched_chat=100_000,
    short_chat=1_000,
    imported=50_000,
    readers=1_000,
    projected=50_000,
    unapplied=100_000,
    sustained=100_000,
    sustained_s=10.0,
    lag_s=10.0,
)
QUICK = Sizes(
    rounds=2,
    seconds=0.3,
    warm_up_s=0.1,
    small_database=1_000,
    large_database=20_000,
    searched_chat=10_000,
    short_chat=1_000,
    imported=5_000,
    readers=200,
    projected=5_000,
    unapplied=10_000,
    sustained=10_000,
    sustained_s=3.0,
    lag_s=3.0,
)


@dataclass(frozen=True)
class FilledChat:
    """An imported chat: where it is, how many messages it has, with which of the corpus it begins."""

    path: ChatPath
    messages: int
    first: int


@dataclass(frozen=True)
class Filled:
    """A filled database, and what is in it."""

    storage: Path
    messages: int
    chats: dict[str, FilledChat]
    imported: Imported | None
    """What the import took; None where the rows were written straight into the servers."""
    indexing_s: float
    """How long a server over it worked in the background at first, to index what was imported."""


class Workbench:
    """Of one house. Use it as a context manager: at its end every process that it started is gone."""

    def __init__(self, house: str, folder: Path, corpus: Corpus, sizes: Sizes, *, import_files: Path) -> None:
        self.house: House
        self._open = contextlib.ExitStack()
        self.house = Embedded() if house == Embedded.name else Whole(lambda: self.stack, self._open)
        self.folder = folder
        self.corpus = corpus
        self.sizes = sizes
        self.import_files = import_files
        self._pool: ProcessPoolExecutor | None = None
        self._storages = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def in_client(self, function: Callable[[W], R], work: W) -> R:
        """Run a function in the client's process and wait for it.

        Raises:
            Wrong: as the function does, and when the process died.
        """
        if self._pool is None:
            # Ctrl-C goes to the whole group of processes; this one is told to end by the pool.
            self._pool = ProcessPoolExecutor(
                1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=signal.signal,
                initargs=(signal.SIGINT, signal.SIG_IGN),
            )
        try:
            return self._pool.submit(function, work).result()
        except BrokenProcessPool as error:
            self._pool = None
            raise Wrong("the client's process died") from error

    def new_storage(self) -> Path:
        """An empty folder."""
        self._storages += 1
        storage = self.folder / f"storage-{self._storages}"
        storage.mkdir()
        return storage

    @contextlib.contextmanager
    def server(self, storage: Path | None = None) -> Iterator[Server]:
        """A server of ours that is ready, over a storage, or over a new one that is removed with it."""
        with contextlib.ExitStack() as stack:
            if storage is None:
                storage = self.new_storage()
                stack.callback(shutil.rmtree, storage)
            yield stack.enter_context(running(self.house.spawn(storage), "/health/ready"))

    @functools.cached_property
    def stack(self) -> Stack:
        """The servers of the stack house; they run until the end."""
        stack = Stack(self.folder / "servers")
        self._open.callback(stack.close)
        return stack

    @functools.cached_property
    def bare(self) -> Server:
        """The bare ASGI app; it runs until the end."""
        return self._open.enter_context(running(self.spawn_bare(), "/"))

    def spawn_bare(self) -> Server:
        """Start another bare ASGI app, without waiting for it."""
        return spawn_limit("bare", log=self.folder / "bare.log")

    def bare_answers(self, answer: FixedAnswer) -> None:
        """Let the bare ASGI app give this answer from now on."""
        self.bare.api.call("PUT", "/", answer, status=answer.status)

    @functools.cached_property
    def small(self) -> Filled:
        """A database of one chat, small."""
        return self._fill("small", [(LONG_CHAT, self.sizes.small_database)])

    @functools.cached_property
    def large(self) -> Filled:
        """A database of three chats, large: one long, one to search in, one short."""
        long = self.sizes.large_database - self.sizes.searched_chat - self.sizes.short_chat
        chats = [
            (SHORT_CHAT, self.sizes.short_chat),
            (SEARCHED_CHAT, self.sizes.searched_chat),
            (LONG_CHAT, long),
        ]
        return self._fill("large", chats, built=self.sizes.built)

    def import_file(self, chats: list[tuple[str, int]]) -> Path:
        """A file to import, made of the corpus; the same file for the same chats."""
        first, last = self.corpus.lines[0], self.corpus.lines[-1]
        made_of = repr((chats, self.corpus.source, len(self.corpus.lines), first, last))
        path = self.import_files / f"import-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.ndjson.gz"
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            self.corpus.write_import_file(unfinished, chats)
            unfinished.rename(path)
        return path

    def _fill(self, name: str, chats: list[tuple[str, int]], *, built: bool = False) -> Filled:
        storage = self.new_storage()
        imported = None
        if built:
            self.house.build(storage, Plan(self.corpus, APPLICATION, chats))
        else:
            imported = self.house.fill(storage, self.import_file(chats), APPLICATION)
        with self.server(storage) as server:
            indexing_s = server.rest(INDEXING_TIMEOUT_S)
            token = next(a.token for a in server.api.applications() if a.name == APPLICATION)
            found: dict[str, FilledChat] = {}
            first = 0
            for title, count in chats:
                chat = next((c for c in server.api.chats(token) if c.title == title), None)
                if chat is None or chat.messages_count != count:
                    raise Wrong(f"the {name} database should hold a chat {title} of {count} messages, but: {chat}")
                found[title] = FilledChat(ChatPath(token, chat.number), count, first)
                first += count
        return Filled(storage, first, found, imported, indexing_s)
