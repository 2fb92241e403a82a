"""What can go wrong: one `Fault` for each kind, with how it is injected, how it is healed, and how often it is chosen.

    faults = faults_of(site, chance)

A fault names what it touches; two that touch the same thing are never injected together. Recovery is measured from the
beginning of `heal`: of a process that was killed it contains its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from campaign.sites import EmbeddedSite, Site, StackSite, WatchedStackHouse
from campaign.unsynced import Unsynced
from tests.faults.wire import Wire
from tests.houses import House
from tests.servers.process import Server

MOMENT_S = (0.05, 0.6)
SILENCE_S = (0.1, 1.5)
LONG_S = (0.5, 2.5)
LATE_S = (0.01, 0.15)
JUMPS_S = (-3600.0, -60.0, -1.0, 1.0, 90.0, 7200.0)
"""Below a day in all: what is kept for a day may then be forgotten."""

HEADROOM_BYTES = 32 * 1024
REDIS_HEADROOM_BYTES = 256 * 1024
UNSYNCED_WAIT_S = 0.3
ROLL_PATIENCE_S = 5.0
ANSWER_TIMEOUT_S = 30.0

Act = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One kind of fault at one place. `at_rest` are injected when no request is under way and all is applied."""

    kind: str
    touches: str
    inject: Act
    heal: Act
    weight: float = 1.0
    lasts_s: tuple[float, float] = MOMENT_S
    at_rest: bool = False

    @property
    def name(self) -> str:
        """What happened to what."""
        return f"{self.touches}: {self.kind}"


async def nothing() -> None:
    """There is nothing to be done."""


def faults_of(site: Site, chance: random.Random) -> list[Fault]:
    """All that can happen there."""
    faults = [*_of_wire(site.front, "clients to API", chance), _clock(site, chance)]
    if isinstance(site, EmbeddedSite):
        faults += _of_embedded(site, chance)
    if isinstance(site, StackSite):
        faults += _of_stack(site, chance)
    return faults


# Connections


def _of_wire(wire: Wire, name: str, chance: random.Random) -> Iterator[Fault]:
    """Cut, silent, slow, and broken in the middle of what was being said."""

    async def cut() -> None:
        wire.cut()

    async def hold() -> None:
        wire.hold()

    async def delay() -> None:
        wire.delay(chance.uniform(*LATE_S))

    async def halve() -> None:
        wire.halve()

    async def mend() -> None:
        wire.mend()

    yield Fault("cut", name, cut, mend)
    yield Fault("silent", name, hold, mend, lasts_s=SILENCE_S)
    yield Fault("slow", name, delay, mend, lasts_s=SILENCE_S)
    yield Fault("halved", name, halve, mend)


def _clock(site: Site, chance: random.Random) -> Fault:
    """The clock is set; healing leaves it where it is, as machines do, unless it went too far."""

    async def jump() -> None:
        site.clock.jump(chance.choice(JUMPS_S))

    return Fault("jumps", "clock", jump, nothing)


# Processes


def _of_process(name: str, pid: Callable[[], int], kill: Act, start: Act, weight: float = 1.0) -> Iterator[Fault]:
    """Killed and started again; stopped for a while, its connections open.

    What a killed process has written is the system's, which is taken to write it out before the power fails.
    """

    async def freeze() -> None:
        os.kill(pid(), signal.SIGSTOP)

    async def thaw() -> None:
        os.kill(pid(), signal.SIGCONT)

    yield Fault("killed", name, kill, start, weight)
    yield Fault("stopped for a while", name, freeze, thaw, weight, SILENCE_S)


async def _end(site: Site, name: str, stop: Callable[[], int], kill: Callable[[], None]) -> None:
    """Ask a process to end. It may be one that has just been started and knows no signals yet."""
    try:
        code = await asyncio.to_thread(stop)
    except subprocess.TimeoutExpired:
        site.late_ends.append(name)
        await asyncio.to_thread(kill)
    else:
        assert code in (0, -signal.SIGTERM), f"{name} ended with {code} when it was asked to end"


def _of_api(site: Site, house: House, name: str, weight: float) -> Iterator[Fault]:
    async def kill() -> None:
        await asyncio.to_thread(house.kill)

    async def end() -> None:
        await _end(site, name, house.stop, house.kill)

    yield from _of_process(name, lambda: house.pid, kill, site.start, weight)
    yield Fault("asked to end (SIGTERM)", name, end, site.start, weight)


def _fill_disk_of(pid: int, folder: Path) -> None:
    """No file of this process may grow beyond what the largest has now, and a little."""
    largest = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest + HEADROOM_BYTES, resource.RLIM_INFINITY))


def _relieve_disk_of(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def _until_writing(unsynced: Unsynced) -> None:
    """Wait for a moment at which something is written and not synced, so that there is something to tear."""
    deadline = time.monotonic() + UNSYNCED_WAIT_S
    while not unsynced.waiting() and time.monotonic() < deadline:  # noqa: ASYNC110 - another process writes
        await asyncio.sleep(0)


# Embedded


def _of_embedded(site: EmbeddedSite, chance: random.Random) -> Iterator[Fault]:
    house = site.house
    yield from _of_api(site, house, "API", 6)

    async def power_fails() -> None:
        await _until_writing(site.unsynced)
        await asyncio.to_thread(house.kill)
        site.unsynced.tear(house.folder, chance)

    async def fill() -> None:
        _fill_disk_of(house.pid, house.folder)

    async def relieve() -> None:
        _relieve_disk_of(house.pid)

    yield Fault("power fails, unsynced writes are torn", "API", power_fails, site.start, 8)
    yield Fault("its disk is full", "API", fill, relieve, 3, LONG_S)


# Stack


def _of_stack(site: StackSite, chance: random.Random) -> Iterator[Fault]:
    for number, house in enumerate(site.stack_houses, 1):
        yield from _of_api(site, house, f"API {number}", 2)

        yield from _of_worker(site, house, f"worker {number}")
    yield _rolling_restart(site)
    for name, wire in site.wires.items():
        yield from _of_wire(wire, name, chance)
    yield from _of_redis(site, chance)
    yield from _of_server(site.mysql, "MySQL", 2)
    yield _full_disk(site.mysql, "MySQL", 1)
    yield from _of_search(site)


def _of_worker(site: StackSite, house: WatchedStackHouse, name: str) -> Iterator[Fault]:
    async def kill() -> None:
        await asyncio.to_thread(house.kill_worker)

    async def end() -> None:
        await _end(site, name, house.stop_worker, house.kill_worker)

    yield from _of_process(name, lambda: house.worker_pid, kill, site.start, 2)
    yield Fault("asked to end (SIGTERM)", name, end, site.start, 2)


def _rolling_restart(site: StackSite) -> Fault:
    """Every process of ours is asked to end and started again, one after the other.

    The next one follows when all are ready; at the latest after some time, for what another fault has taken away from
    them comes back only when both are healed.
    """

    async def until_ready() -> None:
        site.spawn()
        with contextlib.suppress(AssertionError):
            await site.until_ready(ROLL_PATIENCE_S)

    async def roll() -> None:
        for number, house in enumerate(site.stack_houses, 1):
            await _end(site, f"API {number}", house.stop, house.kill)
            await until_ready()
            await _end(site, f"worker {number}", house.stop_worker, house.kill_worker)
            await until_ready()

    return Fault("restarted one after the other", "API and workers", roll, site.start, 1, (0.0, 0.1))


def _of_server(server: Server, name: str, weight: float) -> Iterator[Fault]:
    async def kill() -> None:
        await asyncio.to_thread(server.kill)

    async def start() -> None:
        await asyncio.to_thread(server.start)

    async def freeze() -> None:
        server.freeze()

    async def thaw() -> None:
        server.thaw()

    yield Fault("killed", name, kill, start, weight)
    yield Fault("stopped for a while", name, freeze, thaw, weight, LONG_S)


def _full_disk(server: Server, name: str, weight: float) -> Fault:
    async def fill() -> None:
        _fill_disk_of(server.pid, server.folder)

    async def relieve() -> None:
        # A server that does not bear a full disk has ended.
        if server.running:
            _relieve_disk_of(server.pid)
        else:
            await asyncio.to_thread(server.start)

    return Fault("its disk is full", name, fill, relieve, weight, LONG_S)


def _of_redis(site: StackSite, chance: random.Random) -> Iterator[Fault]:
    redis = site.redis
    yield from _of_server(redis, "Redis", 5)
    yield _full_disk(redis, "Redis", 2)

    async def power_fails() -> None:
        await _until_writing(site.unsynced)
        await asyncio.to_thread(redis.kill)
        site.unsynced.tear(redis.data, chance)

    async def start() -> None:
        await asyncio.to_thread(redis.start)

    async def fill() -> None:
        used = redis.ask("INFO", "memory").split("used_memory:")[1].split()[0]
        redis.ask("CONFIG", "SET", "maxmemory", str(int(used) + REDIS_HEADROOM_BYTES))

    async def relieve() -> None:
        redis.ask("CONFIG", "SET", "maxmemory", "0")

    async def empty() -> None:
        await asyncio.to_thread(redis.empty)

    yield Fault("power fails, unsynced writes are torn", "Redis", power_fails, start, 6)
    yield Fault("its memory is full", "Redis", fill, relieve, 3, LONG_S)
    yield Fault("emptied, after everything was applied", "Redis", empty, nothing, 3, (0.0, 0.1), at_rest=True)


def _of_search(site: StackSite) -> Iterator[Fault]:
    # It takes twenty seconds to start again.
    server = site.search
    kill, freeze = _of_server(server, "Elasticsearch", 0.3)
    yield kill
    yield Fault(freeze.kind, freeze.touches, freeze.inject, freeze.heal, 2, LONG_S)

    async def block(blocked: bool | None) -> None:
        # What Elasticsearch does to its indices when its disk is nearly full.
        setting = {"index.blocks.read_only_allow_delete": blocked}
        async with httpx.AsyncClient(base_url=server.url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as http:
            answer = await http.put(f"/{site.direct.name}*/_settings", json=setting)
            answer.raise_for_status()

    yield Fault("its disk is full", "Elasticsearch", lambda: block(True), lambda: block(None), 2, LONG_S)
