"""The stack house, taken apart: real MariaDB, Redis and Elasticsearch, API processes and workers, one by one.

Its scenarios ask what each part costs alone, so they start parts and not a whole. A *place* is a database, a key
prefix and an index of its own; an API process and workers over the same place are one system.

The servers are started as the tests start theirs (`tests/servers`): on free ports, over data of their own, and gone
when this process is, even if it is killed. A second copy of that would have to be kept as right as the first, and
both are part of the checkout and of nothing that is installed. Their settings are not the tests': the memory is what
compose.yaml gives, and Java compiles as it does by default.

Not promised: servers on machines of their own, which is what the house is for. Here they share the cores with each
other and with the client, for their limits as for them.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.api import Api
from bench.houses import NO_RATE_LIMIT, REST_TIMEOUT_S, Server, running
from bench.measure import Wrong
from bench.processes import Child, free_port, group_cpu_s, wait_for_rest
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.process import Server as ServerProcess
from tests.servers.process import ServerDidNotStart
from tests.servers.redis import RedisServer
from tests.servers.shared import Addresses, missing
from tests.servers.storage import Storage

MARIADB_OPTIONS = ("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=512M")
JVM_OPTIONS = """
-Xms1g
-Xmx1g
-XX:+UseG1GC
-XX:-UsePerfData
-Djava.io.tmpdir=${ES_TMPDIR}
"""
DRAIN_TIMEOUT_S = 300.0
FSYNC = "appendfsync"


class Measured(ServerProcess):
    """A server whose CPU time is of interest."""

    def cpu_s(self) -> float:
        """CPU time of the server and what it has started so far."""
        assert self._process is not None
        return group_cpu_s(self._process.pid)

    def write_calls(self) -> int:
        """How often the server has written, to files and to sockets, since it was started."""
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/io").read_text("ascii")
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("syscw:")))


class MariaDB(Measured, MariaDBServer):
    """MariaDB with room for the tables."""


class Redis(Measured, RedisServer):
    """Redis, every write on disk when it is answered, unless it is told otherwise."""

    def fsync(self, when: str) -> None:
        """From now on: `always`, or `no` for whenever the system likes."""
        self.ask("CONFIG", "SET", FSYNC, when)

    def flushes(self) -> int:
        """How often it has written its file, each time with an fsync when that is `always`.

        Redis does not count that. It counts what it wrote to clients, and the system counts all it wrote.
        """
        said = self.ask("INFO", "stats")
        to_clients = next(line for line in said.splitlines() if line.startswith("total_writes_processed:"))
        return self.write_calls() - int(to_clients.partition(":")[2])


class Elasticsearch(Measured, ElasticsearchServer):
    """One node whose Java compiles what is run often."""

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "config" / "jvm.options").write_text(JVM_OPTIONS)


@dataclass(frozen=True)
class StackApi(Server):
    """An API process. What its requests cost is paid by Redis and MySQL, too; what it leaves to workers is not."""

    behind: Sequence[Measured]

    def rest(self, timeout_s: float = REST_TIMEOUT_S) -> float:
        return wait_for_rest([self.child, *self.behind], timeout_s)

    def cpu_s(self) -> float:
        return self.child.cpu_s() + sum(server.cpu_s() for server in self.behind)

    def wait_until_applied(self, timeout_s: float = DRAIN_TIMEOUT_S) -> float:
        """Wait until workers have stored and indexed all that was accepted; the seconds that took."""
        return super().rest(timeout_s)


class Stack:
    """The three servers, and what runs on them. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()

    def close(self) -> None:
        """End the servers."""
        self._open.close()

    @staticmethod
    def missing() -> list[str]:
        """What this machine lacks to run it."""
        return missing()

    @functools.cached_property
    def servers(self) -> tuple[MariaDB, Redis, Elasticsearch]:
        """MariaDB, Redis and Elasticsearch, started when they are first asked for.

        Raises:
            Wrong: one of them did not start.
        """
        # Elasticsearch refuses root, and as another user has to get into this folder.
        self.folder.mkdir()
        for folder in (self.folder.parent, self.folder):
            folder.chmod(0o755)
        servers = (
            MariaDB(self.folder / "mariadb", *MARIADB_OPTIONS),
            Redis(self.folder / "redis"),
            Elasticsearch(self.folder / "elasticsearch"),
        )
        try:
            for server in reversed(servers):
                self._open.callback(server.kill)
                server.spawn()
            for server in servers:
                server.wait_until_ready()
        except (ServerDidNotStart, OSError) as error:
            raise Wrong(f"a server did not start: {error}") from error
        return servers

    @property
    def mariadb(self) -> MariaDB:
        """MariaDB."""
        return self.servers[0]

    @property
    def redis(self) -> Redis:
        """Redis."""
        return self.servers[1]

    @property
    def elasticsearch(self) -> Elasticsearch:
        """Elasticsearch."""
        return self.servers[2]

    def versions(self) -> dict[str, str]:
        """Of the servers, if they were started."""
        if "servers" not in self.__dict__:
            return {}
        return {server.name.lower(): server.version() for server in self.servers}

    def rest(self, *children: Child) -> float:
        """Wait until neither the servers nor these processes do anything; the seconds that took."""
        return wait_for_rest([*children, *self.servers], REST_TIMEOUT_S)

    def cpu_s(self) -> float:
        """CPU time that the three servers used so far."""
        return sum(self.cpu_by_server().values())

    def cpu_by_server(self) -> dict[str, float]:
        """The same of each of them."""
        return {server.name.lower(): server.cpu_s() for server in self.servers}

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A new place, removed at the end."""
        addresses = Addresses(self.mariadb.url, self.redis.url, self.elasticsearch.url)
        storage = Storage(addresses, "bench")
        storage.create_database()
        folder = self.folder / storage.name
        folder.mkdir()
        try:
            yield Place(self, storage, folder)
        finally:
            storage.drop()


@dataclass(frozen=True)
class Place:
    """Where one system stands."""

    stack: Stack
    storage: Storage
    folder: Path

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings that name it, and no rate limit."""
        return {
            "CHAT_MODE": "stack",
            "CHAT_MYSQL_URL": self.storage.mysql_url,
            "CHAT_REDIS_URL": self.storage.addresses.redis_url,
            "CHAT_REDIS_PREFIX": self.storage.name,
            "CHAT_ELASTICSEARCH_URL": self.storage.addresses.elasticsearch_url,
            "CHAT_ELASTICSEARCH_INDEX": self.storage.name,
            "CHAT_RATE_PER_S": NO_RATE_LIMIT,
            "CHAT_RATE_BURST": NO_RATE_LIMIT,
        }

    @contextmanager
    def api(self) -> Iterator[StackApi]:
        """An API process over it, from the moment it is ready until the block ends."""
        server = self.spawn_api()
        with running(server, "/health/ready"):
            yield server

    @contextmanager
    def worker(self) -> Iterator[Child]:
        """A worker over it."""
        child = self.spawn_worker()
        try:
            yield child
        finally:
            child.stop()

    def spawn_api(self) -> StackApi:
        """Start an API process, without waiting for it."""
        port = free_port()
        child = self.spawn("serve", {"CHAT_PORT": str(port)})
        return StackApi(child, port, Api(port), (self.stack.redis, self.stack.mariadb))

    def spawn_worker(self) -> Child:
        """Start a worker, without waiting for it."""
        return self.spawn("work", {})

    def spawn(self, command: str, settings: Mapping[str, str], *arguments: str) -> Child:
        """Start one of the program's commands over it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
        return Child(
            [sys.executable, "-m", "chat_system", command, *arguments],
            folder=self.folder,
            log=self.folder / f"{command}.log",
            environment={**inherited, **self.settings, **settings},
        )
