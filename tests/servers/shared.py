"""The servers that a run of the tests shares, whatever the number of its processes.

One set for all of them rather than one each: Elasticsearch takes a gigabyte of memory and ten seconds of a processor
to start. Tests keep apart by databases, key prefixes and indices of their own. A test that hurts a server starts one
of its own (tests/servers/process.py).

CHAT_TEST_MYSQL_URL, CHAT_TEST_REDIS_URL and CHAT_TEST_ELASTICSEARCH_URL each name a server to use instead. The
account of the first must be allowed to make databases: mysql://user:password@host:port. What is made there is removed.

CHAT_TEST_STACK=required makes a missing server a failure; else the stack suites are left out, and the last lines of
the run say why.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import redis

from tests.servers.keeper import ADDRESSES, FAILURE, KEEPER_LOCK, SERVERS, USERS_LOCK
from tests.servers.mariadb import greeting

GIVEN = {
    "MySQL": "CHAT_TEST_MYSQL_URL",
    "Redis": "CHAT_TEST_REDIS_URL",
    "Elasticsearch": "CHAT_TEST_ELASTICSEARCH_URL",
}
USED = "used"
NEEDS = {
    "MySQL": "mariadbd, mariadb-install-db",
    "Redis": "redis-server",
    "Elasticsearch": "java; python3 -m tests.servers.fetch_elasticsearch",
}
ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 110.0
END_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 10
POLL_INTERVAL_S = 0.05


class NoServers(AssertionError):
    """The servers of the stack suites could not be started; why."""


@dataclass(frozen=True)
class Addresses:
    """Where a set of servers is, as the settings of the same names want it; `mysql_url` names no database."""

    mysql_url: str
    redis_url: str
    elasticsearch_url: str


def required() -> bool:
    """Whether a missing server is a failure."""
    return os.environ.get("CHAT_TEST_STACK") == "required"


def missing() -> list[str]:
    """What this machine lacks for the stack suites. Cheap: nothing is started."""
    return [
        f"{name} ({NEEDS[name]})" for name, kind in SERVERS.items() if name not in _given() and not kind.is_installed()
    ]


def wanted() -> bool:
    """Whether the stack suites are part of this run."""
    return required() or not missing()


_of_this_run: list[RunServers] = []


def set_run_servers(servers: RunServers) -> None:
    """Make these the ones that `run_servers` returns."""
    _of_this_run[:] = [servers]


def run_servers() -> RunServers:
    """The servers of this run.

    Raises:
        NoServers: this is no run of the tests.
    """
    if not _of_this_run:
        raise NoServers("only a run of the tests has servers to share")
    return _of_this_run[0]


class RunServers:
    """This process's part in the servers of the run: while it is open, they stay.

    Made with the folder that the processes of the run share; without one it makes one, and removes it at the end.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._owner = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="chat-system-run-"))
        self._lock = (self.folder / USERS_LOCK).open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._addresses: Addresses | None = None

    def begin(self) -> None:
        """Have the servers started, if they are not; return at once."""
        own = [name for name in GIVEN if name not in _given()]
        if self._keeper is not None or not own:
            return
        with (self.folder / "keeper.log").open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.keeper", str(self.folder), *own],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def addresses(self) -> Addresses:
        """Where the servers are, once they are ready.

        Raises:
            NoServers: one is missing or did not start.
        """
        if self._addresses is None:
            if lacks := missing():
                raise NoServers(f"this machine has no {', no '.join(lacks)}")
            self.begin()
            urls = {name: found["url"] for name, found in self._wait().items()} | _given()
            self._addresses = Addresses(urls["MySQL"].rstrip("/"), urls["Redis"], urls["Elasticsearch"].rstrip("/"))
            (self.folder / USED).touch()
        return self._addresses

    def used(self) -> Mapping[str, str]:
        """The version of each server that was used in this run, by its name; empty if none was."""
        if not (self.folder / USED).exists():
            return {}
        versions = {name: found["version"] for name, found in self._own().items()}
        for name, url in _given().items():
            try:
                versions[name] = f"{_ask_version(name, url)} (given)"
            except (OSError, ValueError, httpx.HTTPError, redis.RedisError):
                versions[name] = "that no longer answers (given)"
        return versions

    def close(self) -> None:
        """Let go of them. Whoever made the folder waits until the servers are gone, and removes it."""
        self._lock.close()
        if not self._owner:
            return
        deadline = time.monotonic() + END_TIMEOUT_S
        while self._is_kept() and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        if self._keeper is not None:
            self._keeper.wait(END_TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> Mapping[str, Mapping[str, str]]:
        deadline = time.monotonic() + START_TIMEOUT_S
        failure = self.folder / FAILURE
        while time.monotonic() < deadline and not failure.exists():
            try:
                return self._own()
            except FileNotFoundError:
                time.sleep(POLL_INTERVAL_S)
        raise NoServers(failure.read_text() if failure.exists() else f"no servers in {START_TIMEOUT_S} s")

    def _own(self) -> Mapping[str, Mapping[str, str]]:
        """The servers that the keeper runs; FileNotFoundError while they are not ready."""
        if len(_given()) == len(GIVEN):
            return {}
        found: dict[str, dict[str, str]] = json.loads((self.folder / ADDRESSES).read_text())
        return found

    def _is_kept(self) -> bool:
        with (self.folder / KEEPER_LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def _given() -> dict[str, str]:
    return {name: url for name, variable in GIVEN.items() if (url := os.environ.get(variable))}


def _ask_version(name: str, url: str) -> str:
    parts = urlsplit(url)
    if name == "MySQL":
        return greeting(parts.hostname or "127.0.0.1", parts.port or 3306)
    if name == "Redis":
        node = redis.Redis.from_url(url.replace("+cluster", ""), socket_timeout=ANSWER_TIMEOUT_S)
        with node:
            return str(node.info("server")["redis_version"])
    answer = httpx.get(url, timeout=ANSWER_TIMEOUT_S, trust_env=False).raise_for_status()
    return str(answer.json()["version"]["number"])
