"""A server process of the tests' own: its folder and port, and everything that may happen to it.

    with RedisServer(folder) as redis:    # started, and ready
        redis.freeze()                    # SIGSTOP: connections stay open, nothing answers
        redis.thaw()                      # SIGCONT
        redis.kill()                      # SIGKILL, as a crash would
        redis.start()                     # the same port, the same data
        redis.stop()                      # SIGTERM, and wait for the orderly end

A server ends with the process that started it, even when that one is killed: a leash, which is a shell that waits
for its standard input to end, kills the server's process group then.

Not promised: that two servers may share a folder, or that calls of several threads may overlap.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

START_TIMEOUT_S = 90.0
EXIT_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.03
LOG_TAIL_CHARACTERS = 4000

PORTS_FROM = 15_000
PORTS_BELOW = 32_000
"""Below the ports that systems hand to outgoing connections: one of those could sit on a server's port while it is
restarted, which under load happens."""

NOBODY = 65534
"""The user that a server which refuses root runs as."""


class ServerDidNotStart(AssertionError):
    """The process ended, or did not answer in START_TIMEOUT_S; the message carries the end of its log."""


_given: set[int] = set()
"""Ports are given once: what asked for one may bind it much later, or again and again."""

_share = (
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)
"""Of the processes of one run of the tests each has ports of its own: which process this is, of how many."""


def share_ports(part: int, parts: int) -> None:
    """Take a part of this process's share, for one of several that it has started: `part` counts from 0."""
    global _share  # noqa: PLW0603 - one process, one share
    _share = _share[0] + _share[1] * part, _share[1] * parts


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody holds or was given, and that no outgoing connection will be given."""
    part, parts = _share
    for _ in range(1000):
        port = random.randrange(PORTS_FROM + part, PORTS_BELOW, parts)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for servers' data, which other users can reach into, unlike pytest's; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="chat-system-servers-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """One server process over one folder. Subclasses say how theirs is prepared, started and asked."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log_path = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{self.name} on 127.0.0.1:{self.port}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @classmethod
    def is_installed(cls) -> bool:
        """Whether this machine has what starting it takes."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where it answers, as the setting of that server wants it."""
        raise NotImplementedError

    @property
    def data(self) -> Path:
        """Where it keeps its data."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """The process id, once it was started; of Elasticsearch that of its launcher."""
        assert self._process is not None, f"{self!r} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """Make what the first start needs. Called once, when there is no data yet."""

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The whole environment of the process."""
        return dict(os.environ)

    def version(self) -> str:
        """What the server says that it is. Raises when it does not answer."""
        raise NotImplementedError

    def spawn(self) -> None:
        """Start the process and return at once, ready or not."""
        assert not self.running, f"{self!r} runs already"
        if not self.data.exists():
            self.folder.mkdir(exist_ok=True)
            self.prepare()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", f"read _; kill -s KILL -- -{self._process.pid}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            ServerDidNotStart: it ended first, or took longer than START_TIMEOUT_S.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerDidNotStart(f"{self!r} ended at once:\n{self.log_text()}")
            with contextlib.suppress(OSError, ValueError):
                self.version()
                return
            time.sleep(POLL_INTERVAL_S)
        self.kill()
        raise ServerDidNotStart(f"{self!r} did not answer in {START_TIMEOUT_S} s:\n{self.log_text()}")

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            ServerDidNotStart: it ended first, or took longer than START_TIMEOUT_S.
        """
        self.spawn()
        self.wait_until_ready()

    def kill(self) -> None:
        """End it as a crash would. Harmless when it does not run."""
        self._signal(signal.SIGKILL)
        self._await_end()

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and wait until it has."""
        self._signal(signal.SIGTERM)
        self._await_end()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again: same port, same data."""
        self.kill()
        self.start()

    def log_text(self) -> str:
        """The end of what it wrote to stdout and stderr, over all its lives."""
        text = self.log_path.read_text("utf-8", errors="replace") if self.log_path.exists() else ""
        return text[-LOG_TAIL_CHARACTERS:]

    def _signal(self, number: signal.Signals) -> None:
        # The group: Elasticsearch is a launcher and the server proper.
        if self._process is not None and self.running:
            os.killpg(self._process.pid, number)

    def _await_end(self) -> None:
        if self._process is not None:
            self._process.wait(EXIT_TIMEOUT_S)
        if self._leash is not None:
            self._leash.kill()
            self._leash.wait()
            assert self._leash.stdin is not None
            self._leash.stdin.close()
            self._leash = None
