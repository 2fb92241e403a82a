"""How a server of ours is started and filled, black box: a process, an environment and HTTP.

A house is one way of running Chat System. Most scenarios know houses only through `House`. Those of the stack house
take it apart (`stack.py`).

Not promised: the settings of a tuned server. All are defaults but the rate limit, which would cut the load.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.api import Api
from bench.building import Plan, build_sqlite
from bench.measure import Wrong
from bench.processes import Child, free_port, wait_for_rest

SQLITE_FILE = "chat.sqlite3"
NO_RATE_LIMIT = "10000000"
REST_TIMEOUT_S = 120.0
IMPORT_TIMEOUT_S = 400.0

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Server:
    """A running server: ours or a limit."""

    child: Child
    port: int
    api: Api

    def rest(self, timeout_s: float = REST_TIMEOUT_S) -> float:
        """Wait until a server has no backlog and does nothing in the background; the seconds that took.

        Raises:
            Wrong: it still had something to do after `timeout_s`.
        """
        started_at = time.monotonic()
        while True:
            wait_for_rest([self.child], timeout_s)
            if (backlog := self.api.backlog()) == 0:
                return time.monotonic() - started_at
            if time.monotonic() - started_at > timeout_s:
                raise Wrong(f"{backlog:.0f} entries still waited to be applied after {timeout_s:.0f} s")

    def cpu_s(self) -> float:
        """CPU time that was used so far to answer its requests."""
        return self.child.cpu_s()

    def stop(self) -> None:
        """End the process."""
        self.api.close()
        self.child.stop()


@dataclass(frozen=True)
class Imported:
    """What an import took: seconds from the start of the process to its end, and its peak memory."""

    seconds: float
    peak_mib: float


class House(Protocol):
    """One way of running Chat System. A storage is a folder of its own."""

    name: str

    def spawn(self, storage: Path) -> Server:
        """Start a server over a storage, new or not, without waiting for it."""

    def fill(self, storage: Path, file: Path, application: str) -> Imported:
        """Import a file into a storage that no server has open."""

    def build(self, storage: Path, plan: Plan) -> None:
        """Write what is planned straight into a new storage. See `building`."""


class Embedded:
    """One process and one SQLite file."""

    name = "embedded"

    def spawn(self, storage: Path) -> Server:
        """Start `chat-system serve`."""
        port = free_port()
        child = Child(
            [sys.executable, "-m", "chat_system", "serve"],
            folder=storage,
            log=storage / "server.log",
            environment=self._environment(storage) | {"CHAT_PORT": str(port)},
        )
        return Server(child, port, Api(port))

    def fill(self, storage: Path, file: Path, application: str) -> Imported:
        """Run `chat-system import`."""
        child = Child(
            [sys.executable, "-m", "chat_system", "import", str(file), "--name", application],
            folder=storage,
            log=storage / "import.log",
            environment=self._environment(storage),
        )
        return Imported(*child.run_to_end(IMPORT_TIMEOUT_S))

    def build(self, storage: Path, plan: Plan) -> None:
        """Let `chat-system migrate` make the file, and fill it."""
        child = Child(
            [sys.executable, "-m", "chat_system", "migrate"],
            folder=storage,
            log=storage / "migrate.log",
            environment=self._environment(storage),
        )
        child.run_to_end(REST_TIMEOUT_S)
        build_sqlite(storage / SQLITE_FILE, plan)

    def _environment(self, storage: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
        return inherited | {
            "CHAT_SQLITE_PATH": str(storage / SQLITE_FILE),
            "CHAT_RATE_PER_S": NO_RATE_LIMIT,
            "CHAT_RATE_BURST": NO_RATE_LIMIT,
        }


def spawn_limit(module: str, *arguments: str, log: Path) -> Server:
    """Start one of the benchmark's own servers without waiting for it."""
    port = free_port()
    child = Child([sys.executable, "-m", f"bench.{module}", str(port), *arguments], folder=PROJECT, log=log)
    return Server(child, port, Api(port))


@contextmanager
def running(server: Server, ready_path: str) -> Iterator[Server]:
    """A spawned server, from the moment it answers a GET until the block ends."""
    try:
        server.child.wait_until(lambda: server.api.answers(ready_path))
        yield server
    finally:
        server.stop()
