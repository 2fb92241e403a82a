"""Houses under test: real server processes, each with a port and a storage folder of its own.

A house is one way of running Chat System (see HOUSES). `House` starts it, waits until it is ready, kills it,
restarts it over the same storage, and hands out everything it logged.

    house = HOUSES["embedded"](folder, {"admin_key": "secret"})   # CHAT_ADMIN_KEY=secret
    house.start()           # spawn, then wait for GET /health/ready to be 200
    house.url               # "http://127.0.0.1:41234", the same after every restart
    house.kill()            # SIGKILL, as a crash would
    house.restart()         # kill and start again: same port, same storage
    house.stop()            # SIGTERM, and wait for the orderly end; returns the exit code
    house.discard()         # kill it, and remove what it stored outside its folder
    house.log_text()        # stdout and stderr of every life so far

The stack house has a worker process besides: start() starts it too, and the words above are about the API process.

    house.kill_worker()     # also freeze_worker, thaw_worker, stop_worker; start() leaves a stopped one alone
    house.start_worker()

Settings are named as in `chat-system settings`, lower case and without the `CHAT_` in front. Nothing of the
caller's own CHAT_* environment reaches the server.

Not promised: that two houses may share a folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import httpx

from tests.servers.process import free_port
from tests.servers.shared import Addresses, run_servers, wanted
from tests.servers.storage import Storage

SettingValue = str | int | float | bool

READY_TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.03


class HouseDidNotStart(AssertionError):
    """The process ended, or was not ready in READY_TIMEOUT_S; the message carries its log."""


def environment_value(value: SettingValue) -> str:
    """A setting as the environment carries it: booleans are 1 and 0."""
    return str(int(value)) if isinstance(value, bool) else str(value)


class House:
    """One API process over one storage folder. Subclasses add what their storage needs."""

    name: ClassVar[str]

    def __init__(self, folder: Path, settings: Mapping[str, SettingValue] | None = None) -> None:
        self.folder = folder
        self.settings = dict(settings or {})
        self.host = str(self.settings.get("host", "127.0.0.1"))
        self.port = int(self.settings.get("port", 0)) or free_port()
        self.log_path = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._end_is_known = True

    def __repr__(self) -> str:
        return f"<{self.name} house at {self.url}>"

    @property
    def url(self) -> str:
        """Where the API answers, without a trailing slash."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id, while it runs."""
        assert self._process is not None, "the house was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def storage_settings(self) -> dict[str, SettingValue]:
        """The settings that tie this house to its own storage."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The whole environment of the server process."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
        ours: dict[str, SettingValue] = {"mode": self.name, "host": self.host, **self.storage_settings()}
        ours |= self.settings
        ours["port"] = self.port
        named = {f"CHAT_{name.upper()}": environment_value(value) for name, value in ours.items()}
        return inherited | named | {"PYTHONUNBUFFERED": "1"}

    def prepare(self) -> None:
        """Make what must be there before the first start. Harmless when it is there."""

    def spawn(self) -> None:
        """Start the process and return at once, ready or not.

        Raises:
            HouseDidNotStart: the one before had ended by itself, and nobody waited for that.
        """
        assert not self.running, "the house runs already"
        if self._process is not None and not self._end_is_known:
            raise HouseDidNotStart(f"{self!r} had ended by itself, code {self._process.poll()}:\n{self.log_text()}")
        self.prepare()
        self._process = self.run("serve", self.log_path)
        self._end_is_known = False

    def run(self, command: str, log_path: Path) -> subprocess.Popen[bytes]:
        """Start a command of `chat-system` in the house's folder and environment."""
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "chat_system", command],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        """Spawn the process and wait until it reports itself ready.

        Raises:
            HouseDidNotStart: it ended first, or took longer than READY_TIMEOUT_S.
        """
        self.spawn()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if not self.running:
                raise HouseDidNotStart(f"{self!r} ended with code {self.wait_for_exit()}:\n{self.log_text()}")
            if self._answers_ready():
                return
            time.sleep(POLL_INTERVAL_S)
        self.kill()
        raise HouseDidNotStart(f"{self!r} was not ready in {READY_TIMEOUT_S} s:\n{self.log_text()}")

    def _answers_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5.0, trust_env=False, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def wait_for_exit(self) -> int:
        """Wait until the process ended by itself; its exit code (-9 after a SIGKILL)."""
        assert self._process is not None, "the house was not started"
        code = self._process.wait(timeout=EXIT_TIMEOUT_S)
        self._end_is_known = True
        return code

    def kill(self) -> None:
        """End the process as a crash would, with no chance to tidy up.

        Harmless when it ended already, but if that was by itself, it can't be started again.
        """
        if self._process is not None:
            self._end_is_known |= self.running
            self._process.kill()
            self._process.wait(timeout=EXIT_TIMEOUT_S)

    def stop(self) -> int:
        """Ask the process to end (SIGTERM), wait for it, and return its exit code."""
        assert self._process is not None, "the house was not started"
        self._process.send_signal(signal.SIGTERM)
        return self.wait_for_exit()

    def restart(self) -> None:
        """Kill the process and start another over the same storage, at the same address."""
        self.kill()
        self.start()

    def discard(self) -> None:
        """Kill it for good; what it stored outside its folder is removed."""
        self.kill()

    def log_text(self) -> str:
        """Everything that the server wrote to stdout and stderr, over all its lives."""
        return _text_of(self.log_path)


class EmbeddedHouse(House):
    """One process and one SQLite file."""

    name = "embedded"

    @property
    def sqlite_path(self) -> Path:
        """The database file."""
        return self.folder / "chat.sqlite3"

    def storage_settings(self) -> dict[str, SettingValue]:
        return {"sqlite_path": str(self.sqlite_path)}


class StackHouse(House):
    """An API process and a worker process over MySQL, Redis and Elasticsearch.

    The servers are those of the run, each with a place of this house's own on it. `servers` may name others, all or
    some, which the test has to itself: nothing is removed there at the end.
    """

    name = "stack"

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, SettingValue] | None = None,
        servers: Addresses | None = None,
    ) -> None:
        super().__init__(folder, settings)
        self.storage = Storage(servers or run_servers().addresses())
        self.worker_log_path = folder / "worker.log"
        self._has_database = False
        self._worker: subprocess.Popen[bytes] | None = None
        self._worker_wanted = True
        self._worker_end_is_known = True

    def storage_settings(self) -> dict[str, SettingValue]:
        return {
            "mysql_url": self.storage.mysql_url,
            "redis_url": self.storage.addresses.redis_url,
            "redis_prefix": self.storage.name,
            "elasticsearch_url": self.storage.addresses.elasticsearch_url,
            "elasticsearch_index": self.storage.name,
        }

    @property
    def worker_running(self) -> bool:
        """Whether the worker process is alive."""
        return self._worker is not None and self._worker.poll() is None

    @property
    def worker_pid(self) -> int:
        """The worker's process id, once it was started."""
        assert self._worker is not None, "the worker was not started"
        return self._worker.pid

    def prepare(self) -> None:
        if not self._has_database:
            self.storage.create_database()
            self._has_database = True

    def start(self) -> None:
        """Start the API process, wait until it is ready, and start the worker unless it was stopped by the test."""
        super().start()
        if self._worker_wanted and not self.worker_running:
            self.start_worker()

    def start_worker(self) -> None:
        """Start the worker process. It is not waited for: its work shows in what it has done.

        Raises:
            HouseDidNotStart: the one before had ended by itself.
        """
        assert not self.worker_running, "the worker runs already"
        if self._worker is not None and not self._worker_end_is_known:
            code, log = self._worker.poll(), _text_of(self.worker_log_path)
            raise HouseDidNotStart(f"the worker of {self!r} had ended by itself, code {code}:\n{log}")
        self._worker_wanted = True
        self._worker = self.run("work", self.worker_log_path)
        self._worker_end_is_known = False

    def kill_worker(self) -> None:
        """End the worker as a crash would. Harmless when it does not run."""
        self._worker_wanted = False
        if self._worker is not None:
            self._worker_end_is_known |= self.worker_running
            self._worker.kill()
            self._worker.wait(timeout=EXIT_TIMEOUT_S)

    def stop_worker(self) -> int:
        """Ask the worker to end (SIGTERM), wait for it, and return its exit code."""
        assert self._worker is not None, "the worker was not started"
        self._worker_wanted = False
        self._worker_end_is_known = True
        self._worker.send_signal(signal.SIGTERM)
        return self._worker.wait(timeout=EXIT_TIMEOUT_S)

    def restart_worker(self) -> None:
        """Kill the worker and start another."""
        self.kill_worker()
        self.start_worker()

    def freeze_worker(self) -> None:
        """SIGSTOP: the worker holds what it has read, and does nothing."""
        os.kill(self.worker_pid, signal.SIGSTOP)

    def thaw_worker(self) -> None:
        """SIGCONT: the worker goes on."""
        os.kill(self.worker_pid, signal.SIGCONT)

    def discard(self) -> None:
        super().discard()
        self.kill_worker()
        if self._has_database:
            self.storage.drop(run_servers().addresses())

    def log_text(self) -> str:
        """What the API process wrote, then what the worker wrote, over all their lives."""
        return super().log_text() + _text_of(self.worker_log_path)


def _text_of(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.exists() else ""


HOUSES: dict[str, type[House]] = {"embedded": EmbeddedHouse}
if wanted():
    HOUSES["stack"] = StackHouse
