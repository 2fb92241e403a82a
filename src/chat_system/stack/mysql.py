"""MySQL or MariaDB: a small pool of connections, and what their errors mean.

Connections are made when they are needed: a server that is away fails the call that needs it and nothing else. Every
session reads what is committed at the moment of each statement (READ COMMITTED) and refuses data that does not fit.

Not promised: that a statement whose connection broke was not carried out. Reads are repeated once on a fresh
connection, when one that had lain idle turns out to be dead; writes are repeated by callers that can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncmy
from asyncmy.connection import Connection
from asyncmy.errors import DataError, IntegrityError, InterfaceError, InternalError, MySQLError

from chat_system.errors import ConfigurationError, Unavailable
from chat_system.telemetry import DATABASE_ERRORS

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
"""How long what a request waits for may take, the wait for a free connection included."""

PROBE_EVERY_S = 1.0
"""Of a server that keeps silent: how often one request finds out whether it answers again. The others fail at once."""

WRITE_TIMEOUT_S = 60.0
LOCK_WAIT_S = 10
LOCK_ATTEMPTS = 5
"""How often a transaction that others' locks got in the way of is tried."""

STATEMENT_MAX_BYTES = 4 * 1024 * 1024
"""No statement of ours is longer; a server that takes less than this is obeyed."""

STATEMENTS_KEPT = 64
"""Queries that a connection has prepared: the server need not read them anew, and answers in binary."""

LEAVE_S = 0.0005
"""How long a statement is given to leave: a socket does not take a large one at once."""

_SESSION = (
    f"SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = {LOCK_WAIT_S}",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)

# Numbers of errors, by what they mean for us.
_LOCKED = {1205, 1213, 1020}
"""Lock wait timeout, deadlock, record changed: the transaction can be tried again."""

_LOST = {2002, 2003, 2005, 2006, 2013, 2055, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031}
"""The connection is gone: server away, shutting down, or the session killed."""

_REFUSED = {
    1040: "has no connection left",
    1203: "has no connection left",
    1226: "has no connection left",
    1129: "has blocked this host",
    1021: "has no disk space left",
    1026: "can't write to its disk",
    1030: "can't write to its disk",
    1114: "has no space left",
    1037: "has no memory left",
    1041: "has no memory left",
    1290: "is read-only",
    1792: "is read-only",
    1836: "is read-only",
    1317: "interrupted the statement",
    1969: "interrupted the statement",
    3024: "interrupted the statement",
    1180: "could not commit",
    # No data of ours causes these: somebody has to mend the server or its rights, and nothing is lost by waiting.
    1044: "refuses access to the database",
    1045: "refuses the user or the password",
    1049: "does not have the database",
    1054: "has other tables than this version needs",
    1142: "refuses access to a table",
    1143: "refuses access to a column",
    1146: "lacks a table: run `chat-system migrate`",
    1227: "refuses a privilege",
    1698: "refuses the user or the password",
}

_OF_THE_DATA = {1064, 1065, 1136, 1153, 1300, 1364, 1366, 1406, 1411, 1644, 3819, 4025, 4078, *range(3140, 3160)}
"""What is to be stored may be to blame, or the statement that we have made of it."""

MISCONFIGURED = {1044, 1045, 1049, 1142, 1227, 1698}

# The driver logs what the server warns of: that syntax is deprecated, that a table is there already. Data is not
# among it: what does not fit is an error.
logging.getLogger("asyncmy").setLevel(logging.ERROR)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Address:
    """Where the database is and how to get in."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str) -> Address:
        """Read `mysql://user:password@host:port/database`, with `?tls=1` or `?tls=/path/of/ca.pem` for TLS.

        Raises:
            ConfigurationError: it is no such address.
        """
        parts = urlsplit(url)
        database = unquote(parts.path.lstrip("/"))
        if parts.scheme != "mysql" or not parts.hostname or not database:
            raise ConfigurationError("CHAT_MYSQL_URL must be like mysql://user:password@host:port/database.")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        tls = options.pop("tls", "0")
        if options:
            raise ConfigurationError(f"CHAT_MYSQL_URL has an unknown option: {next(iter(options))}. There is only tls.")
        try:
            port = parts.port or 3306
        except ValueError as error:
            raise ConfigurationError(f"CHAT_MYSQL_URL: {error}.") from error
        try:
            authority = None if tls in ("0", "1") else tls
            context = None if tls == "0" else ssl.create_default_context(cafile=authority)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"CHAT_MYSQL_URL: the certificates in {tls} can't be read: {error}.") from error
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(parts.hostname, port, user, password, database, context)

    async def connect(self) -> Connection:
        """A connection, as the driver made it."""
        try:
            connection: Connection = await asyncmy.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                database=self.database,
                charset="utf8mb4",
                autocommit=True,
                stmt_cache_size=STATEMENTS_KEPT,
                connect_timeout=CONNECT_TIMEOUT_S,
                ssl=self.tls,
            )
        except RuntimeError as error:
            # The driver's word for a connection that was lost while it was being made.
            raise ConnectionResetError(str(error)) from error
        return connection

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


class Transaction:
    """Statements that are committed together. Ends with the context that gave it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return await _fetch(self._connection, sql, parameters)

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Carry out a statement; the number of rows it changed: 2 for each that an upsert changed, 0 if as before."""
        if parameters:
            sql = self._connection.cursor().mogrify(sql, tuple(parameters))
        return await _query(self._connection, sql)

    async def execute_each(self, statements: Iterable[bytes]) -> int:
        """Carry out statements one after the other; the number of rows that they changed, as `execute` counts.

        Each is taken from the iterable while the server is at the one before.
        """
        changed = 0
        under_way: asyncio.Task[int] | None = None
        try:
            for statement in statements:
                if under_way is not None:
                    changed += await under_way
                under_way = asyncio.create_task(_query(self._connection, statement))
                # The server shall work on it while the next is made.
                await asyncio.sleep(LEAVE_S)
            if under_way is not None:
                changed += await under_way
        except asyncio.CancelledError:
            if under_way is not None:
                under_way.cancel()
            raise
        finally:
            if under_way is not None and not under_way.done():
                # Whoever rolls back must not speak while the server still answers.
                await asyncio.wait([under_way])
        return changed

    async def insert(self, sql: str, parameters: Sequence[Any]) -> int:
        """Insert one row; the number that the server gave it."""
        await self.execute(sql, parameters)
        return self._connection.insert_id()


class Database:
    """The connections of one process: at most `connections`, the one that was used last first."""

    def __init__(self, address: Address, connections: int) -> None:
        self.address = address
        self.statement_max_bytes = STATEMENT_MAX_BYTES
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(connections)
        self._closed = False
        self._silent_until: float | None = None

    @classmethod
    async def open(cls, url: str, *, connections: int = 8) -> Database:
        """A database that connects when it is first needed.

        Raises:
            ConfigurationError: `url` is no address of a database.
        """
        return cls(Address.of(url), connections)

    async def close(self) -> None:
        """Close what is idle now, and whatever is in use as soon as it is given back."""
        self._closed = True
        while self._idle:
            await _say_goodbye(self._idle.pop())

    async def ping(self) -> None:
        """Raises Unavailable when the database does not answer."""
        await self.fetch("SELECT 1")

    async def fetch(
        self, sql: str, parameters: Sequence[Any] = (), *, timeout_s: float | None = READ_TIMEOUT_S
    ) -> list[tuple[Any, ...]]:
        """The rows of one query.

        Raises:
            Unavailable: the database is away, or did not answer in time.
        """
        with meaning():
            async with self._patience(timeout_s), self._slots:
                connection, fresh = await self._take()
                try:
                    try:
                        rows = await _fetch(connection, sql, parameters)
                    except Exception as error:
                        if fresh or not _is_lost(error):
                            raise
                        self._drop(connection)
                        connection = await self._connect()
                        rows = await _fetch(connection, sql, parameters)
                except BaseException as error:
                    # What the server answered leaves the connection as it was; after anything else it is not trusted.
                    if isinstance(error, MySQLError) and not _is_lost(error):
                        self._give_back(connection)
                    else:
                        connection.close()
                    raise
                self._give_back(connection)
                return rows

    @contextlib.asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = WRITE_TIMEOUT_S) -> AsyncIterator[Transaction]:
        """Statements that are committed when the context ends, and rolled back when it ends by an exception.

        Raises:
            Locked: others' locks got in the way; trying again may help.
            Unavailable: the database is away: nothing was committed, or, if the commit got no answer, all was.
        """
        async with self._transaction("BEGIN", timeout_s) as transaction:
            yield transaction

    def lock_name(self, purpose: str) -> str:
        """A name for GET_LOCK, of at most 64 characters, that other databases of the server do not use."""
        return f"chat-{purpose}-{hashlib.sha256(self.address.database.encode()).hexdigest()[:32]}"

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Queries that all see the data as they are now, however long they take."""
        async with self._transaction("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY", None) as transaction:
            yield transaction

    async def commit(
        self, unit: Callable[[Transaction], Awaitable[Result]], *, timeout_s: float = WRITE_TIMEOUT_S
    ) -> Result:
        """Run a unit of work as one transaction, again when others' locks get in its way.

        Raises:
            Unavailable: the database is away, or the locks stay.
        """
        for attempt in range(1, LOCK_ATTEMPTS + 1):
            try:
                async with self.transaction(timeout_s=timeout_s) as transaction:
                    return await unit(transaction)
            except Locked:
                if attempt == LOCK_ATTEMPTS:
                    raise
                await asyncio.sleep(random.uniform(0.005, 0.02) * 2**attempt)  # noqa: S311 - spreads the retries
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def _patience(self, timeout_s: float | None) -> AsyncIterator[None]:
        """So long and no longer. A server that hangs costs one request its time-out, not each of them.

        What may take long (`timeout_s` beyond READ_TIMEOUT_S) waits for itself.
        """
        if timeout_s is None or timeout_s > READ_TIMEOUT_S:
            async with asyncio.timeout(timeout_s):
                yield
            return
        loop = asyncio.get_running_loop()
        if self._silent_until is not None:
            if loop.time() < self._silent_until:
                raise Unavailable("MySQL does not answer.")
            # This one finds out.
            self._silent_until = loop.time() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            self._silent_until = loop.time() + PROBE_EVERY_S
            raise
        except Exception:
            # An error is an answer.
            self._silent_until = None
            raise
        self._silent_until = None

    @contextlib.asynccontextmanager
    async def _transaction(self, begin: str, timeout_s: float | None) -> AsyncIterator[Transaction]:
        with meaning():
            async with self._patience(timeout_s), self._slots:
                connection = await self._begin(begin)
                try:
                    yield Transaction(connection)
                    await connection.commit()
                except Exception as error:
                    await self._roll_back(connection, error)
                    raise
                except BaseException:
                    # Cancelled, perhaps amid an answer: the server rolls back what it hears no more of.
                    connection.close()
                    raise
                self._give_back(connection)

    async def _begin(self, begin: str) -> Connection:
        """A connection with a transaction begun: nothing is lost when an idle one turns out to be dead."""
        connection, fresh = await self._take()
        try:
            await self._start(connection, begin)
        except Exception as error:
            self._drop(connection)
            if fresh or not _is_lost(error):
                raise
            connection = await self._connect()
            try:
                await self._start(connection, begin)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            connection.close()
            raise
        return connection

    async def _start(self, connection: Connection, begin: str) -> None:
        if begin != "BEGIN":
            await _query(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await _query(connection, begin)

    async def _roll_back(self, connection: Connection, error: Exception) -> None:
        if not _is_lost(error):
            with contextlib.suppress(Exception):
                await connection.rollback()
                self._give_back(connection)
                return
        connection.close()

    async def _take(self) -> tuple[Connection, bool]:
        """A connection, and whether it was made just now."""
        while self._idle:
            connection = self._idle.pop()
            if connection.connected:
                return connection, False
        return await self._connect(), True

    async def _connect(self) -> Connection:
        connection: Connection | None = None
        try:
            # The driver's own timeout ends when the server accepts; one that then keeps silent would hold us for ever.
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                connection = await self.address.connect()
                for statement in _SESSION:
                    await _query(connection, statement)
                packet = (await _fetch(connection, "SELECT @@max_allowed_packet", ()))[0][0]
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self.statement_max_bytes = min(STATEMENT_MAX_BYTES, int(packet) - 1024)
        return connection

    def _give_back(self, connection: Connection) -> None:
        if self._closed or not connection.connected:
            connection.close()
        else:
            self._idle.append(connection)

    def _drop(self, connection: Connection) -> None:
        """One that lay idle is dead: the others will be, too."""
        connection.close()
        while self._idle:
            self._idle.pop().close()


class Locked(Unavailable):
    """Others' locks got in a transaction's way: it was rolled back, and may be tried again."""

    def __init__(self, detail: str = "MySQL is busy: others hold the rows that this needs.") -> None:
        super().__init__(detail)


async def _fetch(connection: Connection, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    await cursor.execute(sql, tuple(parameters) or None)
    return list(await cursor.fetchall())


async def _query(connection: Connection, sql: str | bytes) -> int:
    """Carry out a statement that answers no rows; how many it changed."""
    # Not through a cursor: it would fetch the server's warnings, and MySQL has one for each upsert.
    await connection.query(sql)  # type: ignore[no-untyped-call]
    return connection.affected_rows()


async def _say_goodbye(connection: Connection) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1.0):
            await connection.ensure_closed()
    connection.close()


def _number(error: BaseException) -> int | None:
    number = error.args[0] if isinstance(error, MySQLError) and error.args else None
    return number if isinstance(number, int) else None


def _is_lost(error: BaseException) -> bool:
    """Whether the connection can't be used any more: the driver says so, or the conversation went out of step."""
    if isinstance(error, InterfaceError | InternalError | OSError | EOFError):
        return True
    return _number(error) in _LOST


@contextlib.contextmanager
def meaning(*, pass_unknown: bool = False) -> Any:
    """Turn the driver's errors into what they mean for a caller; data errors pass as they are.

    What is in no list is waited for, unless it is to pass, too: a migration would meet it again and again.
    """
    try:
        yield
    except (MySQLError, OSError, EOFError, TimeoutError) as error:
        number = _number(error)
        if number in _LOCKED:
            raise Locked from error
        DATABASE_ERRORS.inc()
        if isinstance(error, TimeoutError):
            raise Unavailable("MySQL does not answer.") from error
        if number in _REFUSED:
            raise Unavailable(f"MySQL {_REFUSED[number]}.") from error
        if _is_lost(error):
            raise Unavailable("MySQL is away.") from error
        if pass_unknown or number is None or number in _OF_THE_DATA or isinstance(error, DataError | IntegrityError):
            raise
        # Whatever else it has, and there are thousands of numbers, is no fault of what was to be stored.
        raise Unavailable(f"MySQL refuses ({number}).") from error
