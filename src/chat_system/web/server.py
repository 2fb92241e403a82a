"""The process that serves: connections, signals, and an orderly end.

SIGTERM and SIGINT end it in order: no new connections, open streams are finished, requests that were accepted are
answered, then the house is closed. A second signal does not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvloop

from chat_system import telemetry
from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.telemetry import log
from chat_system.web.app import App
from chat_system.web.connection import Connections
from chat_system.web.listening import BACKLOG_CONNECTIONS, listen
from chat_system.web.processes import supervise
from chat_system.wiring import open_house

SHUTDOWN_S = 20.0
SWITCH_INTERVAL_S = 0.0001
"""How long a thread waits for the interpreter's lock before it asks for it. A COMMIT can't begin earlier while the
event loop is busy, and Python's usual 5 ms are many flushes long."""
GARBAGE_THRESHOLD = 50_000
"""Allocations between two looks for cycles. A request leaves none, so looking often only costs."""


def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        ConfigurationError: it can't start, and why.
        SystemExit: one of several processes did not end well; the exit code is its own.
    """
    settings.check_exposure()
    if settings.processes > 1:
        if settings.mode == "embedded":
            raise ConfigurationError(
                f"CHAT_PROCESSES is {settings.processes}, and in embedded mode one SQLite file has one process."
                " Leave CHAT_PROCESSES unset, or set CHAT_MODE=stack."
            )
        supervise(settings)
    else:
        answer(settings, listen(settings))


def answer(settings: Settings, listening: socket.socket) -> None:
    """Answer what comes to a bound socket until a signal ends it, and close it.

    Raises:
        ConfigurationError: the house can't be opened, and why.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, listening:
        runner.run(_answer(settings, listening))


async def _answer(settings: Settings, listening: socket.socket) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    async with open_house(settings) as house:
        app = App(house, settings)
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        background = [asyncio.create_task(one) for one in (house.run(), app.keep_going(), _mirror_metrics())]
        for task in background:
            task.add_done_callback(_complain)
        port = listening.getsockname()[1]
        try:
            # Not before: the house may wait a minute for MySQL, and would not look at a signal that was only noted.
            with _signals() as told:
                log.info("serving", url=f"http://{settings.host}:{port}", on=house.where, process=os.getpid())
                await _serve(app, listening, told)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
    log.info("stopped")


def _complain(task: asyncio.Task[None]) -> None:
    """None of what goes on in the background ends by itself."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background work ended", exc_info=error)


async def _serve(app: App, listening: socket.socket, told: asyncio.Event) -> None:
    """Take connections until it is told to end, then answer what was asked; told again, it does not wait."""
    connections = Connections(app)
    loop = asyncio.get_running_loop()
    # Those that are accepted and not listened to yet are the kernel's to keep.
    server = await loop.create_server(connections.accept, sock=listening, backlog=BACKLOG_CONNECTIONS)
    ticking = asyncio.create_task(_tick(connections))
    await told.wait()
    told.clear()
    server.close()
    # Streams would never end by themselves.
    app.live.close()
    connections.end()
    waiting = [asyncio.create_task(event.wait()) for event in (connections.none_left, told)]
    await asyncio.wait(waiting, timeout=SHUTDOWN_S, return_when=asyncio.FIRST_COMPLETED)
    connections.abort()
    for task in (ticking, *waiting):
        task.cancel()


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Set whenever one says that it is time to end."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _tick(connections: Connections) -> None:
    while True:
        await asyncio.sleep(1)
        connections.set_date()
        connections.cut_slow()


async def _mirror_metrics() -> None:
    try:
        while True:
            telemetry.mirror()
            await asyncio.sleep(telemetry.MIRROR_EVERY_S)
    finally:
        telemetry.mirror()
