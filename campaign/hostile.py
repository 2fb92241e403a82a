"""Clients that are slow, greedy or rude, by the hundred, while others are served.

    found = await attack(Target.of(house.host, house.port, house.pid))

Each kind holds its connections open as long as the server lets it. Meanwhile a bystander posts and reads, one request
after the other, over connections of its own: each of its requests must be answered, and how long the slowest took is
noted, with the memory of the server while they are all there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from campaign.fuzz import resident_mib

SLOW, IDLE, GREEDY = 300, 2_000, 40
HOLD_S = 30.0
"""Longer than the server waits for a head."""
DRIP_S = 0.5
ANSWER_TIMEOUT_S = 30.0
HEAD_LINES = 20_000
OVER_BYTES = 9 * 1024 * 1024
PIECE_BYTES = 65_536
FILLED, FILLED_CHARACTERS = 200, 5_000
"""So that a page is long: a reader that does not read is to be noticed."""


@dataclass
class Endured:
    """One kind of client: how many, how they ended, and how the bystander fared meanwhile."""

    kind: str
    clients: int
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    bystander_requests: int = 0
    bystander_failures: int = 0
    bystander_slowest_s: float = 0.0
    memory_mib: float = 0.0


@dataclass(frozen=True)
class Target:
    """The server under attack: where it is, its process, and a chat on it."""

    host: str
    port: int
    pid: int
    token: str

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @classmethod
    def of(cls, host: str, port: int, pid: int) -> Target:
        """A server that runs, with a new chat of a new application."""
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=ANSWER_TIMEOUT_S, trust_env=False) as http:
            token = http.post("/applications", json={"name": "Under attack"}).raise_for_status().json()["token"]
            http.post(f"/applications/{token}/chats", json={}).raise_for_status()
            filled = {"messages": [{"body": "x" * FILLED_CHARACTERS}] * FILLED}
            http.post(f"/applications/{token}/chats/1/messages/batch", json=filled).raise_for_status()
        return cls(host, port, pid, token)

    @property
    def chat(self) -> str:
        """The path of the chat."""
        return f"/applications/{self.token}/chats/1"


Client = Callable[[Target], Awaitable[str]]


async def attack(target: Target, held_s: float = HOLD_S, share: float = 1.0) -> list[Endured]:
    """Every kind in turn; `share` makes all numbers smaller."""
    kinds: list[tuple[str, Client, int]] = [
        ("heads that come byte by byte", _slow_head, SLOW),
        ("bodies that come byte by byte", _slow_body, SLOW),
        ("bodies that stop half-way", _half_body, SLOW),
        ("connections that say nothing", _silent, IDLE),
        ("idle live streams", _idle_stream, IDLE),
        ("heads of twenty thousand lines", _flood_of_lines, GREEDY),
        ("a head line without an end", _endless_line, GREEDY),
        ("bodies over the cap", _over_cap, GREEDY),
        ("answers that nobody reads", _never_reads, GREEDY),
    ]
    return [await _endure(target, kind, client, max(1, int(count * share)), held_s) for kind, client, count in kinds]


async def _endure(target: Target, kind: str, client: Client, count: int, held_s: float) -> Endured:
    endured, began, ending = Endured(kind, count), time.monotonic(), asyncio.Event()
    bystander = asyncio.create_task(_stand_by(target, endured, ending))
    rude = [asyncio.create_task(_ended(target, client, held_s)) for _ in range(count)]
    for task in rude:
        endured.ends[await task] += 1
    endured.memory_mib = resident_mib(target.pid)
    ending.set()
    await bystander
    endured.seconds = time.monotonic() - began
    return endured


async def _ended(target: Target, client: Client, held_s: float) -> str:
    """How a rude client's connection ended: with an answer, by the server, or by us when it was held long enough."""
    try:
        async with asyncio.timeout(held_s):
            return await client(target)
    except TimeoutError:
        return "held until we left"
    except (ConnectionError, asyncio.IncompleteReadError):
        return "closed by the server"


async def _stand_by(target: Target, endured: Endured, ending: asyncio.Event) -> None:
    async with httpx.AsyncClient(base_url=target.url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as http:
        while not ending.is_set() or not endured.bystander_requests:
            began = time.monotonic()
            try:
                posted = await http.post(f"{target.chat}/messages", json={"body": "a bystander"})
                read = await http.get(f"{target.chat}/messages", params={"order": "desc", "limit": 1})
                right = posted.status_code == 201 and read.json()[0]["number"] >= posted.json()["number"]
            except httpx.HTTPError:
                right = False
            endured.bystander_requests += 2
            endured.bystander_failures += not right
            endured.bystander_slowest_s = max(endured.bystander_slowest_s, time.monotonic() - began)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _answered(reader: asyncio.StreamReader) -> str:
    """The status of what the server says, or that it hung up."""
    try:
        line = await reader.readline()
    except ConnectionError:
        line = b""
    return f"answered {line.split(b' ')[1].decode()}" if line else "closed by the server"


async def _slow_head(target: Target) -> str:
    async with _connected(target) as (reader, writer):
        answer = asyncio.create_task(_answered(reader))
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        while not answer.done():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait({answer}, timeout=DRIP_S)
        return await answer


async def _slow_body(target: Target) -> str:
    async with _connected(target) as (reader, writer):
        answer = asyncio.create_task(_answered(reader))
        head = f"POST {target.chat}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
        writer.write(head.encode() + b'{"body":"')
        while not answer.done():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait({answer}, timeout=DRIP_S)
        return await answer


async def _half_body(target: Target) -> str:
    async with _connected(target) as (reader, writer):
        head = f"POST {target.chat}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
        writer.write(head.encode() + b'{"body":"' + b"x" * 30_000)
        return await _answered(reader)


async def _silent(target: Target) -> str:
    async with _connected(target) as (reader, _):
        return await _answered(reader)


async def _idle_stream(target: Target) -> str:
    async with _connected(target) as (reader, writer):
        writer.write(f"GET {target.chat}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while await reader.read(PIECE_BYTES):
            pass
        return "closed by the server"


async def _flood_of_lines(target: Target) -> str:
    async with _connected(target) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"".join(b"X-%d: x\r\n" % line for line in range(HEAD_LINES)) + b"\r\n")
        return await _answered(reader)


async def _endless_line(target: Target) -> str:
    async with _connected(target) as (reader, writer):
        answer = asyncio.create_task(_answered(reader))
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: ")
        while not answer.done():
            writer.write(b"x" * PIECE_BYTES)
            await writer.drain()
            await asyncio.sleep(0)
        return await answer


async def _over_cap(target: Target) -> str:
    async with _connected(target) as (reader, writer):
        answer = asyncio.create_task(_answered(reader))
        head = f"POST {target.chat}/messages/batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for _ in range(OVER_BYTES // PIECE_BYTES):
            if answer.done():
                break
            writer.write(b"%x\r\n%b\r\n" % (PIECE_BYTES, b" " * PIECE_BYTES))
            await writer.drain()
        return await answer


async def _never_reads(target: Target) -> str:
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=1)
    try:
        ask = f"GET {target.chat}/messages?limit=200 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        while not reader.at_eof():
            writer.write(ask)
            await writer.drain()
            await asyncio.sleep(0)
        return "closed by the server"
    finally:
        writer.transport.abort()
