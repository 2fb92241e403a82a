"""The SQLite file: who may open it, one connection that writes with group commit, and connections that read.

Promises: when a write's future resolves, its transaction is on disk (WAL, `synchronous=FULL`). Writes are
applied in the order in which they were submitted. Whatever queued during the last fsync goes into the next
transaction, so an fsync is shared by all who wait for it.

Short SQL runs on the event loop: handing it to a thread costs more than the statement. The COMMIT, which
waits for the disk, and everything long run in threads (ADR 4).

Not promised: several processes. A lock file refuses the second server of one file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from chat_system import telemetry
from chat_system.embedded import schema
from chat_system.errors import ChatSystemError, ConfigurationError, Unavailable
from chat_system.telemetry import log

T = TypeVar("T")
Unit = Callable[["Transaction"], Any]
"""A piece of a transaction. It raises a ChatSystemError only before it has changed anything."""

FLUSH_MAX_UNITS = 1000
LOCKED_WAIT_S = 5.0
"""How long a write waits for a foreign process that holds the database's write lock."""
LOCKED_RETRY_S = 0.01
INLINE_MAX_BYTES = 256 * 1024
"""What a transaction may write on the event loop; larger ones are written in the thread."""
CHECKPOINT_PAGES = 4000
"""After how many pages of 4 KiB the log is brought into the file, within a COMMIT. SQLite's 1,000 would be one COMMIT
in forty when many post to many chats."""
WRITER_CACHE_KIB = 16 * 1024
READER_CACHE_KIB = 16 * 1024
SCANNER_CACHE_KIB = 4 * 1024
SCANNERS = 2
INLINE_MAX_ROWS = 256
"""How many rows are written on the event loop; more of them are written by the thread, before its COMMIT."""
ROWS_PER_INSERT = 32
"""More of them in one statement gain nothing on the event loop."""
ROWS_PER_LONG_INSERT = 256
"""In the thread, which has to get the interpreter's lock back after each statement."""
STATEMENTS_KEPT = 256
"""Prepared statements that a connection keeps: among them each INSERT for each number of rows."""

ABSENT = 0
"""What stands for NULL among texts and bytes. To bind None takes as long as ten integers: the driver looks for an
adapter of it each time, as of a type that it does not know."""

_FIRST = itemgetter(0)


class Insert:
    """An INSERT that writes many rows with few statements: one more statement costs the driver as much as a row.

    In the columns of `nullable`, which hold texts or bytes, a row has ABSENT instead of None.
    """

    def __init__(self, into: str, *, or_else: str = "FAIL", nullable: Collection[str] = ()) -> None:
        columns = into[into.index("(") + 1 : -1].split(", ")
        # FAIL, not ABORT: what a failing statement has written goes with its transaction, so SQLite need not keep
        # each page that it changes in a journal of the statement's own.
        start = f"INSERT OR {or_else} INTO {into} VALUES "

        def value(place: int, column: str) -> str:
            # Not nullif(): it makes a statement of 16 rows slower by far more than None does.
            return f"CASE ? WHEN {ABSENT} THEN NULL ELSE ?{place} END" if column in nullable else "?"

        def row(index: int) -> str:
            return f"({', '.join(map(value, count(index * len(columns) + 1), columns))})"

        self._of_rows = {
            rows: start + ", ".join(map(row, range(rows)))
            for rows in (*range(1, ROWS_PER_INSERT + 1), ROWS_PER_LONG_INSERT)
        }

    def write(self, connection: sqlite3.Connection, rows: list[Sequence[Any]]) -> None:
        """Write rows, by the order of their first columns: neighbours in the table are written one after another."""
        rows.sort(key=_FIRST)
        start = 0
        while start < len(rows):
            left = len(rows) - start
            size = ROWS_PER_LONG_INSERT if left >= ROWS_PER_LONG_INSERT else min(left, ROWS_PER_INSERT)
            connection.execute(self._of_rows[size], list(chain.from_iterable(rows[start : start + size])))
            start += size


class Transaction:
    """One flush. Rows that can be written together are staged, and written before anything else looks."""

    def __init__(self, connection: sqlite3.Connection, at: int) -> None:
        self.at = at
        self._connection = connection
        self._staged: dict[str, list[Sequence[Any]]] = {}
        self._inserts: dict[Insert, list[Sequence[Any]]] = {}
        self.after_commit: dict[Any, Callable[[], None]] = {}
        """What to tell whom once it is durable, by a key that keeps it from being told twice."""
        self.before_commit: dict[Any, Callable[[Transaction], None]] = {}
        self.posted_to: set[Any] = set()
        """The chats that got messages, so that what is once for each of them is done once."""
        self.touched: set[Any] = set()
        """These and those in which a message changed, of which the counts are not written yet."""
        self.memory: dict[Any, Any] = {}
        """What the units of one flush must know of each other before it is in a table."""

    def stage(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Write the rows, together with others of the same statement, before the next `execute`."""
        staged = self._staged.get(sql)
        if staged is None:
            self._staged[sql] = list(rows)
        else:
            staged += rows

    def rows_of(self, insert: Insert) -> list[Sequence[Any]]:
        """What an insert is to write before the next `execute`: append to it."""
        rows = self._inserts.get(insert)
        if rows is None:
            rows = self._inserts[insert] = []
        return rows

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        """Run a statement that sees all that was staged."""
        if self._staged or self._inserts:
            self.settle()
        return self._connection.execute(sql, parameters)

    def lookup(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first row of a query of something that is never staged, or None."""
        return self._connection.execute(sql, parameters).fetchone()

    def settle(self) -> None:
        """Write what was staged."""
        inserts, self._inserts = self._inserts, {}
        for insert, rows in inserts.items():
            insert.write(self._connection, rows)
        staged, self._staged = self._staged, {}
        for sql, changes in staged.items():
            self._connection.executemany(sql, changes)

    def is_long(self) -> bool:
        """Whether more is staged than the event loop should write."""
        return sum(map(len, self._inserts.values())) > INLINE_MAX_ROWS

    def catch_up(self) -> None:
        """Write all that was to be written before the COMMIT: from here on the tables tell the whole truth."""
        actions, self.before_commit = self.before_commit, {}
        for action in actions.values():
            action(self)
        self.settle()


class _Write:
    """A unit that waits for its transaction."""

    __slots__ = ("bytes", "future", "result", "unit")

    def __init__(self, unit: Unit, future: asyncio.Future[Any], size: int) -> None:
        self.unit = unit
        self.future = future
        self.bytes = size
        self.result: Any = None


class Database:
    """An open database file. Made by `open`; all methods belong to one event loop."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._writer = self._connect(WRITER_CACHE_KIB)
        # The mode lives in the file, and some ways of restoring a backup leave another.
        if lock is not None and self._writer.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise ConfigurationError(
                f"The database {path} can't use a write-ahead log: is its folder on a network disk?"
            )
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        # Journals of statements that do need one: in a file of their own they cost system calls.
        self._writer.execute("PRAGMA temp_store = MEMORY")
        self._reader = self._connect(READER_CACHE_KIB)
        self._reader.execute("PRAGMA query_only = ON")
        self._scanner = threading.local()
        self._scanners = ThreadPoolExecutor(SCANNERS, "scan")
        self._scanner_connections: list[sqlite3.Connection] = []
        self._pending: deque[_Write] = deque()
        self._busy = False
        self._locked_since: float | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="commit", daemon=True)
        self._thread.start()
        self.on_rollback: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, path: Path, *, shared: bool = False) -> Database:
        """Open the file, making or migrating it first. `shared` is for reading beside a running server.

        Raises:
            ConfigurationError: the file is not ours, damaged, newer than this program, in use, or can't be made.
        """
        # By its real name: a link to a file in use must not have a lock of its own.
        path = path.resolve()  # noqa: ASYNC240 - at the start nothing else is waiting
        with contextlib.ExitStack() as closing:
            lock = None
            if not shared:
                lock = _take_lock(path)
                closing.callback(os.close, lock)
            try:
                schema.examine(path)
                if shared:
                    schema.require_current(path)
                else:
                    schema.migrate(path)
                opened = cls(path, lock)
            except (sqlite3.Error, OSError) as error:
                raise ConfigurationError(f"The database {path} can't be used: {error}.") from error
            closing.pop_all()
            return opened

    async def close(self) -> None:
        """Wait for what is being written, and close. Idempotent."""
        while self._busy:
            # The queue is worked off in order: this comes after all that was submitted before.
            with contextlib.suppress(Unavailable):
                await self.write(lambda _transaction: None)
        if self._thread.is_alive():
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self._scanners.shutdown)
            for connection in (self._reader, *self._scanner_connections, self._writer):
                connection.close()
            if self._lock is not None:
                os.close(self._lock)

    # Reading

    def read(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """All rows of a short query, read on the event loop.

        Raises:
            Unavailable: the file can't be read.
        """
        return self.query(lambda connection: connection.execute(sql, parameters).fetchall())

    def query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """The same of several statements.

        Raises:
            Unavailable: the file can't be read.
        """
        try:
            return query(self._reader)
        except sqlite3.Error as error:
            raise _unavailable("read", error) from error

    async def scan(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a long query in a thread, on a connection that only reads.

        Raises:
            Unavailable: the file can't be read.
        """
        try:
            return await self._loop.run_in_executor(self._scanners, self._scan, query)
        except sqlite3.Error as error:
            raise _unavailable("scanned", error) from error

    def _scan(self, query: Callable[[sqlite3.Connection], T]) -> T:
        connection = getattr(self._scanner, "connection", None)
        if connection is None:
            connection = self._scanner.connection = self._connect(SCANNER_CACHE_KIB)
            connection.execute("PRAGMA query_only = ON")
            self._scanner_connections.append(connection)
        return query(connection)

    def _connect(self, cache_kib: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_KEPT
        )
        # Waiting for a lock would stop the event loop: whoever meets one comes back later instead.
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        return connection

    # Writing

    def write(self, unit: Unit, *, size: int = 0) -> asyncio.Future[Any]:
        """Run a unit in the next transaction; the future has its result once that is durable.

        `size` is about how many bytes it writes; what is larger than a moment's work runs in the thread.

        Raises (through the future):
            ChatSystemError: as the unit raised it; others of the transaction are not touched.
            Unavailable: the transaction could not be made durable.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(_Write(unit, future, size))
        if not self._busy:
            self._busy = True
            # Soon, not now: what else is ready in this turn of the loop shares the transaction.
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        writes: list[_Write] = []
        size = 0
        while self._pending and len(writes) < FLUSH_MAX_UNITS:
            # What is large by itself goes to the thread, alone; the rest goes in pieces that the loop can bear.
            if writes and size + self._pending[0].bytes > INLINE_MAX_BYTES:
                break
            write = self._pending.popleft()
            size += write.bytes
            writes.append(write)
        if not writes:
            self._busy = False
        elif size > INLINE_MAX_BYTES:
            self._jobs.put(lambda: self._commit_in_thread(writes))
        else:
            self._begin_inline(writes)

    def _begin_inline(self, writes: list[_Write]) -> None:
        try:
            transaction = self._stage(writes)
        except sqlite3.OperationalError as error:
            self._roll_back()
            if self._waits_for_lock(error):
                self._pending.extendleft(reversed(writes))
                self._loop.call_later(LOCKED_RETRY_S, self._flush)
            else:
                self._loop.call_soon(self._settle, writes, None, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, everyone is told and the queue goes on
            self._roll_back()
            self._loop.call_soon(self._settle, writes, None, error)
        else:
            self._locked_since = None
            self._jobs.put(lambda: self._commit(writes, transaction))

    def _stage(self, writes: list[_Write]) -> Transaction:
        """Run the units in a fresh transaction. A unit with a defect is taken out."""
        while True:
            self._writer.execute("BEGIN IMMEDIATE")
            transaction = Transaction(self._writer, time.time_ns() // 1_000_000)
            for write in writes:
                try:
                    write.result = write.unit(transaction)
                except ChatSystemError as error:
                    write.result = error
                except sqlite3.Error:
                    raise
                except Exception as error:  # noqa: BLE001 - a defect of one unit is no one else's
                    # It may have written half: everyone else starts over without it.
                    self._roll_back()
                    self._loop.call_soon_threadsafe(_resolve, write, error)
                    writes.remove(write)
                    break
            else:
                if not transaction.is_long():
                    transaction.catch_up()
                return transaction

    def _commit(self, writes: list[_Write], transaction: Transaction) -> None:
        """In the thread: write what is staged still, and make the transaction durable."""
        started = time.perf_counter()
        try:
            transaction.catch_up()
            self._writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it was, everyone is told and the queue goes on
            self._roll_back()
            self._loop.call_soon_threadsafe(self._settle, writes, None, error)
        else:
            telemetry.FLUSH_SECONDS.observe(time.perf_counter() - started)
            self._loop.call_soon_threadsafe(self._settle, writes, transaction, None)

    def _commit_in_thread(self, writes: list[_Write]) -> None:
        """In the thread: run long units and make them durable."""
        while True:
            try:
                transaction = self._stage(writes)
            except Exception as error:  # noqa: BLE001 - as in `_begin_inline`
                self._roll_back()
                if not self._waits_for_lock(error):
                    self._loop.call_soon_threadsafe(self._settle, writes, None, error)
                    return
                time.sleep(LOCKED_RETRY_S)
            else:
                self._locked_since = None
                self._commit(writes, transaction)
                return

    def _waits_for_lock(self, error: Exception) -> bool:
        """Whether a foreign process holds the write lock, and has not for too long."""
        now = time.monotonic()
        since = now if self._locked_since is None else self._locked_since
        locked = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        self._locked_since = since if locked and now - since < LOCKED_WAIT_S else None
        return self._locked_since is not None

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself after some errors.
        if self._writer.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
        for forget in self.on_rollback:
            forget()

    def _settle(self, writes: list[_Write], transaction: Transaction | None, error: Exception | None) -> None:
        """Back on the loop: go on with what has queued, and tell everyone."""
        if transaction is not None:
            telemetry.FLUSH_UNITS.observe(len(writes))
            # Announce after the commit: a woken reader must find what it was woken for.
            for announce in transaction.after_commit.values():
                announce()
        # First the disk gets its next work: while it does that, all these are answered.
        self._flush()
        if transaction is None:
            reason = _unavailable("written", error or sqlite3.Error("no transaction"))
            for write in writes:
                unavailable = Unavailable(reason.detail)
                unavailable.__cause__ = error
                _resolve(write, unavailable)
        else:
            for write in writes:
                _resolve(write, write.result)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _resolve(write: _Write, outcome: Any) -> None:
    """On the loop: hand over what became of a write. If the caller has gone, what it asked for stands all the same."""
    future = write.future
    if not future.done():
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _unavailable(doing: str, error: Exception) -> Unavailable:
    # The driver quotes a text that it can't decode; SQLite's own messages name no content.
    code = getattr(error, "sqlite_errorname", None)
    log.error("database failed", doing=doing, error=str(error) if code else type(error).__name__, code=code)
    telemetry.DATABASE_ERRORS.inc()
    if isinstance(error, sqlite3.IntegrityError):
        telemetry.BACKSTOP_HITS.inc()
    return Unavailable(f"The database can't be {doing} at the moment.")


def _take_lock(path: Path) -> int:
    """A lock that lives as long as the process, so that a killed server never leaves one behind."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"The database {path} can't be made or locked: {error.strerror} ({error.filename})."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise ConfigurationError(f"The database {path} is in use by a running server (process {owner}).") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def migrate_file(path: Path) -> bool:
    """Bring a database file that no one uses to the newest schema; True when there was something to do.

    Raises:
        ConfigurationError: it can't be migrated, and why.
    """
    path = path.resolve()
    lock = _take_lock(path)
    try:
        schema.examine(path)
        return schema.migrate(path)
    except (sqlite3.Error, OSError) as error:
        raise ConfigurationError(f"The database {path} can't be migrated: {error}.") from error
    finally:
        os.close(lock)
