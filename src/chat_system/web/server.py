"""The process that serves: uvicorn with our application, until it is told to stop.

SIGTERM and SIGINT end it in order: no new connections, open streams are finished, requests that were accepted are
answered, then the house is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn
import uvloop

from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.telemetry import log
from chat_system.web.app import App
from chat_system.web.protocol import Protocol
from chat_system.wiring import open_house

SHUTDOWN_S = 20
KEEP_ALIVE_S = 75
BACKLOG_CONNECTIONS = 2048
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
    """
    settings.check_exposure()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    listening = _listen(settings)
    with contextlib.closing(listening):
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
            background = [asyncio.create_task(house.run()), asyncio.create_task(app.keep_going())]
            port = listening.getsockname()[1]
            log.info("serving", url=f"http://{settings.host}:{port}", on=house.where, process=os.getpid())
            try:
                await Server(config, app).serve(sockets=[listening])
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
    log.info("stopped")


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        # At once: of two that start at the same moment, the second must find the port taken.
        listening.listen(BACKLOG_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        listening.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Port {settings.port} on {settings.host} is in use. Set CHAT_PORT to another, or to 0 for a free one."
            ) from error
        raise ConfigurationError(f"Can't listen on {settings.host}:{settings.port}: {error}.") from error
    return listening
