"""The process that applies: runs the projections of stack mode until it is told to stop.

Any number of workers share the work. SIGTERM and SIGINT end one in order: what it has begun to apply is applied and
acknowledged, what it has only read goes to the others at once. While it starts it has begun nothing: then they end it
as they end any process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time

import uvloop

from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.telemetry import log, serve_metrics
from chat_system.wiring import House, open_house

FINISH_S = 10.0
"""How long what was begun may take to end, which takes a second or two unless a server keeps silent.

Whatever is lost then is read again by others. Whoever sent the signal will not wait for ever: of what compose.yaml and
Kubernetes grant, this leaves enough to close the connections.
"""

MEASURE_EVERY_S = 2.0
BEAT_EVERY_S = 1.0
STUCK_AFTER_S = 15.0
"""An event loop that has not turned for so long is not going to."""

GARBAGE_THRESHOLD = 50_000
"""Allocations between two looks for cycles. A batch leaves none, so looking often only costs."""


def work(settings: Settings) -> None:
    """Work until a signal ends it.

    Raises:
        ConfigurationError: it can't start, and why.
    """
    if settings.mode != "stack":
        raise ConfigurationError("`work` is for CHAT_MODE=stack: in embedded mode the server does its own work.")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(settings))


async def _work(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with open_house(settings, working=True) as house:
        # Not before: the house may wait a minute for MySQL, and would not look at a signal that was only noted.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        collect_seldom()
        pulse = Pulse()
        if settings.worker_port:
            serve_metrics(settings.host, settings.worker_port, pulse.is_felt)
        log.info("working", on=house.where, process=os.getpid())
        running = [asyncio.create_task(house.run()), asyncio.create_task(_keep_measuring(house, pulse))]
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait((told, *running), return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            # Nothing of it ends by itself.
            told.cancel()
            await asyncio.gather(*running)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(house.finish(), FINISH_S)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    log.info("stopped")


def collect_seldom() -> None:
    """What is there now stays: the collector need not look at it again and again, and seldom at what comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


class Pulse:
    """Whether the event loop still turns, for whoever asks from another thread."""

    def __init__(self) -> None:
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        """It turns."""
        self._beat_at = time.monotonic()

    def is_felt(self) -> bool:
        """Whether it turned of late."""
        return time.monotonic() - self._beat_at < STUCK_AFTER_S


async def _keep_measuring(house: House, pulse: Pulse) -> None:
    measured_at = 0.0
    while True:
        pulse.beat()
        if time.monotonic() - measured_at >= MEASURE_EVERY_S:
            measured_at = time.monotonic()
            # Not `wait_for`: in Python 3.11 it drops a cancellation that comes with the result.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MEASURE_EVERY_S):
                    await house.measure()
        await asyncio.sleep(BEAT_EVERY_S)
