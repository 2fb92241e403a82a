"""Where a campaign takes place: a house, its servers, and a wire between every two of its processes.

    with ExitStack() as ends:
        site = StackSite(folder, ends)       # servers of its own, all started
        await site.start()                   # two API processes, two workers
        site.url                             # where clients reach the API: through a wire, whichever process answers

Embedded mode is one process; the only pair is that of the clients and the API. In stack mode each API process and
each worker speaks to Redis, MySQL and Elasticsearch, and the wires of the API processes are not those of the workers.
The wall clock of Redis and of our own processes is one that can be set, and what they write is watched until it is
synced (unsynced.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx

from campaign.unsynced import Unsynced
from tests.faults.clock import JumpingClock
from tests.faults.exposed import Exposed
from tests.faults.wire import Wire
from tests.houses import EmbeddedHouse, House, SettingValue, StackHouse
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.process import free_port, server_folder
from tests.servers.redis import RedisServer
from tests.servers.shared import Addresses
from tests.servers.storage import Storage

READY_TIMEOUT_S = 90.0
COMMAND_TIMEOUT_S = 300.0
POLL_INTERVAL_S = 0.05
ROOT = Path(__file__).parents[1]

Environment = Mapping[str, str]
NOTHING: Environment = {}


def joined(*environments: Environment) -> dict[str, str]:
    """All variables; libraries to be preloaded, all of them."""
    together: dict[str, str] = {}
    for one in environments:
        libraries = [value for value in (together.get("LD_PRELOAD"), one.get("LD_PRELOAD")) if value]
        together |= one
        if libraries:
            together["LD_PRELOAD"] = ":".join(libraries)
    return together


class WatchedEmbeddedHouse(EmbeddedHouse):
    """The embedded house, its clock and its writes in our hands."""

    extra: Environment = NOTHING
    unsynced: Unsynced | None = None

    def spawn(self) -> None:
        if self.unsynced is not None:
            self.unsynced.forget()
        super().spawn()

    def environment(self) -> dict[str, str]:
        return joined(super().environment(), self.extra)


class WatchedStackHouse(StackHouse):
    """One API process and one worker, each with wires of its kind; nothing is removed at the end."""

    extra: Environment = NOTHING
    worker_servers: Addresses | None = None

    def __init__(self, folder: Path, settings: Mapping[str, SettingValue], servers: Addresses) -> None:
        super().__init__(folder, settings, servers)
        self.worker_port = free_port()

    def environment(self) -> dict[str, str]:
        return joined(super().environment(), self.extra)

    def worker_environment(self) -> dict[str, str]:
        """The same, but for where the servers are."""
        servers = self.worker_servers or self.storage.addresses
        return self.environment() | {
            "CHAT_MYSQL_URL": f"{servers.mysql_url}/{self.storage.database}",
            "CHAT_REDIS_URL": servers.redis_url,
            "CHAT_ELASTICSEARCH_URL": servers.elasticsearch_url,
            "CHAT_WORKER_PORT": str(self.worker_port),
        }

    def run(self, command: str, log_path: Path) -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "chat_system", command],
                env=self.worker_environment() if command == "work" else self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def discard(self) -> None:
        self.kill()
        self.kill_worker()


class WatchedRedis(RedisServer):
    """Redis, its clock and its writes in our hands."""

    extra: Environment = NOTHING
    unsynced: Unsynced | None = None

    def spawn(self) -> None:
        if self.unsynced is not None:
            self.unsynced.forget()
        super().spawn()

    def environment(self) -> dict[str, str]:
        return joined(super().environment(), self.extra)


class Site:
    """What both kinds have: a folder, a clock, a wire to the clients, and a first house."""

    mode: str

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.folder = folder
        self.ends = ends
        self.clock = JumpingClock(folder)
        self.houses: list[House] = []
        self.late_ends: list[str] = []
        """Processes that were asked to end, and had to be killed."""
        self.front: Wire
        self.unsynced: Unsynced

    @property
    def url(self) -> str:
        """Where the clients reach the API."""
        return f"http://127.0.0.1:{self.front.port}"

    def environment(self) -> Environment:
        """What `chat-system` needs to work on the same data, past the wires."""
        raise NotImplementedError

    def servers(self) -> dict[str, str]:
        """The version of each server."""
        return {}

    def spawn(self) -> None:
        """Start every process of ours that does not run."""
        for house in self.houses:
            if not house.running:
                house.spawn()

    async def start(self) -> None:
        """The same, and wait until the API is ready."""
        self.spawn()
        await self.until_ready()

    async def until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every API process says that it can serve.

        Raises:
            AssertionError: one of them does not.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with httpx.AsyncClient(timeout=READY_TIMEOUT_S, trust_env=False) as http:
            for house in self.houses:
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if (await http.get(f"{house.url}/health/ready")).status_code == 200:
                            break
                    late = asyncio.get_running_loop().time() > deadline
                    assert not late, f"{house!r} is not ready:\n{house.log_text()[-3000:]}"
                    await asyncio.sleep(POLL_INTERVAL_S)

    async def until_applied(self) -> None:
        """Wait until everything that was accepted is in the store; embedded mode never waits."""

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `chat-system` as the operator would."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "chat_system", *words],
            env={**self.environment(), "COLUMNS": "400"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def wire(self, url: str) -> Wire:
        """A wire to a server, open until the site ends."""
        return self.ends.enter_context(Wire.to(url, 0))

    def log_text(self) -> str:
        """Everything that our processes have written."""
        return "".join(house.log_text() for house in self.houses)

    def metrics_urls(self) -> list[str]:
        """Where our processes show their metrics."""
        return [f"{house.url}/metrics" for house in self.houses]

    async def metrics(self) -> str:
        """The metrics of every process of ours."""
        async with httpx.AsyncClient(timeout=READY_TIMEOUT_S, trust_env=False) as http:
            shown = [(await http.get(url)).raise_for_status().text for url in self.metrics_urls()]
        return "".join(shown)


class EmbeddedSite(Site):
    """One process over one SQLite file."""

    mode = "embedded"

    def __init__(self, folder: Path, ends: ExitStack, **settings: SettingValue) -> None:
        super().__init__(folder, ends)
        self.unsynced = Unsynced(folder, "-wal", ".sqlite3")
        self.house = WatchedEmbeddedHouse(folder, settings)
        self.house.unsynced = self.unsynced
        self.house.extra = joined(self.clock.environment, self.unsynced.environment)
        self.houses = [self.house]
        ends.callback(self.house.discard)
        self.front = self.wire(self.house.url)

    def environment(self) -> Environment:
        return self.house.environment()


class StackSite(Site):
    """Two API processes and two workers over a Redis, a MariaDB and an Elasticsearch of their own."""

    mode = "stack"

    def __init__(self, folder: Path, ends: ExitStack, **settings: SettingValue) -> None:
        super().__init__(folder, ends)
        data = ends.enter_context(server_folder())
        self.unsynced = Unsynced(folder, ".aof")
        self.redis = WatchedRedis(data / "redis")
        self.redis.unsynced = self.unsynced
        self.redis.extra = joined(self.clock.environment, self.unsynced.environment)
        self.mysql = MariaDBServer(data / "mysql")
        self.search = ElasticsearchServer(data / "search")
        everything = (self.search, self.mysql, self.redis)
        for server in everything:
            ends.callback(server.kill)
            server.spawn()
        for server in everything:
            server.wait_until_ready()
        direct = Addresses(self.mysql.url, self.redis.url, self.search.url)
        self.direct = Storage(direct, "campaign")
        self.direct.create_database()
        self.wires: dict[str, Wire] = {}
        of_api, of_worker = self._through("API", direct), self._through("worker", direct)
        self.stack_houses = [self._house(number, of_api, of_worker, settings) for number in (1, 2)]
        self.houses = list(self.stack_houses)
        to = self.wires
        wires = (to["API to Redis"], to["API to MySQL"], to["API to Elasticsearch"])
        self.exposed = Exposed(self.stack_houses[0], self.direct, self.redis, *wires)
        self.front = self.wire(self.houses[0].url)
        for house in self.houses[1:]:
            self.front.also(house.host, house.port)

    def _through(self, who: str, direct: Addresses) -> Addresses:
        """The servers as one kind of our processes reaches them."""
        wires = {
            name: self.wire(url)
            for name, url in zip(
                ("MySQL", "Redis", "Elasticsearch"),
                (direct.mysql_url, direct.redis_url, direct.elasticsearch_url),
                strict=True,
            )
        }
        self.wires |= {f"{who} to {name}": wire for name, wire in wires.items()}
        return Addresses(
            wires["MySQL"].through(direct.mysql_url),
            wires["Redis"].through(direct.redis_url),
            wires["Elasticsearch"].through(direct.elasticsearch_url),
        )

    def _house(
        self, number: int, of_api: Addresses, of_worker: Addresses, settings: Mapping[str, SettingValue]
    ) -> WatchedStackHouse:
        folder = self.folder / f"house-{number}"
        folder.mkdir()
        house = WatchedStackHouse(folder, settings, of_api)
        house.storage.name = self.direct.name
        house._has_database = True  # noqa: SLF001 - the site has made it
        house.worker_servers = of_worker
        house.extra = self.clock.environment
        self.ends.callback(house.discard)
        return house

    def environment(self) -> Environment:
        house = self.stack_houses[0]
        direct = self.direct.addresses
        return house.environment() | {
            "CHAT_MYSQL_URL": self.direct.mysql_url,
            "CHAT_REDIS_URL": direct.redis_url,
            "CHAT_ELASTICSEARCH_URL": direct.elasticsearch_url,
        }

    def servers(self) -> dict[str, str]:
        return {server.name: server.version() for server in (self.redis, self.mysql, self.search)}

    def spawn(self) -> None:
        super().spawn()
        for house in self.stack_houses:
            if not house.worker_running:
                house.start_worker()

    def metrics_urls(self) -> list[str]:
        of_workers = [f"http://{house.host}:{house.worker_port}/metrics" for house in self.stack_houses]
        return [*super().metrics_urls(), *of_workers]

    async def until_applied(self) -> None:
        await self.exposed.until_applied()
