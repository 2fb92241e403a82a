"""Several processes that answer on one port, and the parent that only looks after them.

Each has a listening socket of its own on the shared port, so the kernel spreads connections evenly and one that dies
takes no one else's with it (ADR 12). The parent starts another in its place, ends them all when a signal ends it, and
keeps the folder in which they share their metrics. Were the parent killed, the others would end in order.

A process is told its settings by its standard input, which stays open as long as the parent lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from chat_system import telemetry
from chat_system.apart import END, python
from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.telemetry import log
from chat_system.web.listening import listen, share

EXIT_REFUSED = 78
"""A process that can't start as it is configured says why on its standard output and ends with this code, which
sysexits.h calls EX_CONFIG."""

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 10.0
PROVEN_AFTER_S = 60.0
"""Who has lived this long before it died is replaced as fast as the first time."""

TAKEN_FOR_S = 3.0
"""How long to wait for the port: those whose parent was killed are about to leave it."""

LOOK_AGAIN_S = 0.1

END_WITHIN_S = 40.0
"""More than a process gives its last requests. Who is still there is killed."""


def supervise(settings: Settings) -> None:
    """Answer with `settings.processes` processes until a signal ends it, then exit as they did.

    Raises:
        ConfigurationError: they can't start, and why.
    """
    with _reserved(settings) as port, tempfile.TemporaryDirectory(prefix="chat-system-") as folder:
        code = asyncio.run(_Parent(replace(settings, port=port), folder).run())
    if code:
        raise SystemExit(code)


@contextlib.contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """The port, bound by a socket that never listens: it stays ours while all processes are between two lives."""
    deadline = time.monotonic() + TAKEN_FOR_S
    # Who shares a port does not notice another server on it; who wants it alone does.
    while (port := _free_port(settings, patient=time.monotonic() < deadline)) is None:
        time.sleep(LOOK_AGAIN_S)
    with share(replace(settings, port=port)):
        yield port


def _free_port(settings: Settings, *, patient: bool) -> int | None:
    """The port that the settings name, or stand for; None while it is taken, if that may pass."""
    try:
        with listen(settings) as alone:
            return int(alone.getsockname()[1])
    except ConfigurationError:
        if not patient:
            raise
        return None


class _Parent:
    """Keeps one process in each place, 0 to `settings.processes` - 1."""

    def __init__(self, settings: Settings, folder: str) -> None:
        self._settings = settings
        self._folder = folder
        self._ending = asyncio.Event()
        self._refusal: str | None = None

    async def run(self) -> int:
        """Until a signal, or until it turns out that none can start: the exit code of those that ended badly."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        log.info("several processes", processes=self._settings.processes, process=os.getpid())
        codes = await asyncio.gather(*(self._keep(str(place)) for place in range(self._settings.processes)))
        if self._refusal is not None:
            raise ConfigurationError(self._refusal)
        return next((code for code in codes if code), 0)

    async def _keep(self, place: str) -> int:
        """Keep the place taken until the end; the exit code of the last one in it."""
        restart_in_s, first = RESTART_FIRST_S, True
        while not self._ending.is_set():
            started_at = time.monotonic()
            process = await self._start(place)
            code = await self._end_of(process)
            telemetry.forget_gauges(place, self._folder)
            if self._ending.is_set():
                return code
            reason = (await process.stdout.read()).decode() if process.stdout and code == EXIT_REFUSED else ""
            if reason and first:
                self._refusal = reason
                self._ending.set()
                break
            first = False
            if time.monotonic() - started_at > PROVEN_AFTER_S:
                restart_in_s = RESTART_FIRST_S
            log.error("process died", process=process.pid, code=code, reason=reason, retry_in_s=restart_in_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), restart_in_s)
            restart_in_s = min(restart_in_s * 2, RESTART_MAX_S)
        return 0

    async def _start(self, place: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *python(),
            "-m",
            "chat_system.web.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {telemetry.SHARED_FOLDER: self._folder, telemetry.PLACE: place},
            # Ctrl-C is for the parent, which ends the others in order.
            process_group=0,
        )
        if process.stdin is not None:
            process.stdin.write(msgspec.json.encode(self._settings) + END)
        return process

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        """Wait until the process has ended, by itself or because we do; its exit code."""
        ended = asyncio.create_task(process.wait())
        told = asyncio.create_task(self._ending.wait())
        await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if ended.done():
            return _exit_code(ended.result())
        process.terminate()
        try:
            code = await asyncio.wait_for(ended, END_WITHIN_S)
        except TimeoutError:
            process.kill()
            code = await process.wait()
        # It had not even begun.
        return 0 if code == -signal.SIGTERM else _exit_code(code)


def _exit_code(code: int) -> int:
    """As a shell tells it: 128 and the signal's number for who was killed."""
    return code if code >= 0 else 128 - code
