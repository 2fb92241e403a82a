"""The process that serves: uvicorn with our application, until it is told to stop.

SIGTERM and SIGINT end it in order: no new connections, open streams are finished, requests that were accepted are
answered, then the house is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.telemetry import log
from chat_system.web.app import App
from chat_system.wiring import open_house

SHUTDOWN_S = 20
KEEP_ALIVE_S = 75
BACKLOG_CONNECTIONS = 2048


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which also lets event streams write to their connection themselves (see `live.py`)."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["chat_system.transport"] = self.transport  # type: ignore[typeddict-unknown-key]


class Server(uvicorn.Server):
    """uvicorn, which ends our event streams first when it shuts down: they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._chat_system = app

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
                backlog=BACKLOG_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
            background = [asyncio.create_task(house.run()), asyncio.create_task(app.keep_going())]
            port = listening.getsockname()[1]
            log.info("serving", url=f"http://{settings.host}:{port}", mode=settings.mode, process=os.getpid())
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
    except (OSError, UnicodeError) as error:
        listening.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Port {settings.port} on {settings.host} is in use. Set CHAT_PORT to another, or to 0 for a free one."
            ) from error
        raise ConfigurationError(f"Can't listen on {settings.host}:{settings.port}: {error}.") from error
    return listening

