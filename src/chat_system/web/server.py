"""The process that serves: uvicorn with our application, until it is told to stop.

SIGTERM and SIGINT end it in order: no new connections, open streams are finished, requests that were accepted are
answered, then the house is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn
import uvloop

from chat_system import telemetry
from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.telemetry import log
from chat_system.web.app import App
from chat_system.web.listening import BACKLOG_CONNECTIONS, listen
from chat_system.web.processes import supervise
from chat_system.web.protocol import Protocol
from chat_system.wiring import open_house

SHUTDOWN_S = 20
KEEP_ALIVE_S = 75
GARBAGE_THRESHOLD = 50_000
"""Allocations between two looks for cycles. A request leaves none, so looking often only costs."""


class Server(uvicorn.Server):
    """uvicorn, which ends our event streams first when it shuts down: they would never end by themselves.

    A signal that was obeyed is a clean end, exit code 0; uvicorn would raise it again.
    """

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._chat_system = app

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._chat_system.live.close()
        await super().shutdown(sockets)


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
    async with open_house(settings) as house:
        app = App(house, settings)
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        background = [asyncio.create_task(one) for one in (house.run(), app.keep_going(), _mirror_metrics())]
        port = listening.getsockname()[1]
        log.info("serving", url=f"http://{settings.host}:{port}", on=house.where, process=os.getpid())
        try:
            await Server(config, app).serve(sockets=[listening])
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
    log.info("stopped")


async def _mirror_metrics() -> None:
    try:
        while True:
            telemetry.mirror()
            await asyncio.sleep(telemetry.MIRROR_EVERY_S)
    finally:
        telemetry.mirror()
