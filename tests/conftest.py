"""Fixtures that every suite over HTTP shares: tests/api first of all, properties and faults too.

    house        session   a running House (tests/houses.py) with default settings, shared by all tests; one
                           per entry of HOUSES, so every test that uses it runs against every house. Isolate
                           by a fresh application; never kill it, never count on it being empty.
                           Synchronous: usable from Hypothesis and threads by its `url`.
                           only("embedded", because="...") marks tests that are about one house.
    serve        function  serve(**settings) starts a house for this test alone: own port, own storage,
                           discarded at the end. serve(rate_per_s=5) sets CHAT_RATE_PER_S.
    build_house  function  the same without starting it, for tests of starting and refusing to start.
    connect      function  connect(house, headers=None) opens a Client (tests/client.py), closed at the end.
    client       function  a Client of `house`.
    application  function  a fresh application of `house` (the JSON of its 201).
    chat         function  a ChatAt: a fresh chat of that application, through `client`.
    other_chat   function  a ChatAt in another fresh application, for tests of isolation.

    mysql_url redis_url elasticsearch_url
                 session   servers that all tests share (mysql_url names no database: make one of your own). A
                           test that asks for one is left out of runs without servers.
    own_mysql own_redis own_elasticsearch
                 function  running servers of this test's own, to be killed, frozen, emptied (tests/servers/).
                           own(redis=own_redis) are the shared ones but for that one: serve(servers=own(...)).
    redis_cluster session  three nodes of this process's own.

When a test fails, the tail of the log of every house that ran is added to its report. The last lines of a run say
which servers the stack house stood on, or why it was left out (tests/servers/shared.py).

`-k stack` runs what is about the stack house only, `-k "not stack"` all but that; the latter starts no server.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.client import Application, ChatAt, Client
from tests.houses import HOUSES, House, SettingValue, StackHouse
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.process import Server, server_folder
from tests.servers.redis import RedisCluster, RedisServer
from tests.servers.shared import Addresses, RunServers, missing, required, run_servers, set_run_servers, wanted
from tests.stack_place import leave_stack_place

BuildHouse = Callable[..., House]
Connect = Callable[..., Client]

LOG_TAIL_CHARACTERS = 6000

RUN_FOLDER = "chat_run_folder"

_alive: list[House | Server] = []


def pytest_configure(config: pytest.Config) -> None:
    """Join the run's servers, none of which is started yet.

    SIGTERM ends a run as Ctrl-C does, through the fixtures' ends: else its servers would outlive it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shared: dict[str, str] = getattr(config, "workerinput", {})
    set_run_servers(RunServers(Path(shared[RUN_FOLDER]) if shared else None))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist where the run's servers are agreed upon."""
    node.workerinput[RUN_FOLDER] = str(run_servers().folder)


def pytest_unconfigure() -> None:
    """Leave the run's servers. The first process of the run sees them end."""
    run_servers().close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the servers started while the first tests run, if any test will want them."""
    if not session.config.option.collectonly and any("stack" in item.nodeid for item in session.items):
        run_servers().begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the servers said to the report of a failed test."""
    report = yield
    if report.failed:
        for house in _alive:
            report.sections.append((f"log of {house!r}", house.log_text()[-LOG_TAIL_CHARACTERS:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in the last lines what the suites ran against, and what was left out."""
    used = ", ".join(f"{name} {version}" for name, version in sorted(run_servers().used().items()))
    terminalreporter.write_line(f"houses tested: {', '.join(sorted(HOUSES))}; servers used: {used or 'none'}")
    if lacks := missing():
        effect = "the stack suites fail" if required() else "left out: every test of the stack house"
        terminalreporter.write_line(f"{effect}, since this machine has no {', no '.join(lacks)}")


@pytest.fixture(scope="session", autouse=True)
def stack_place_end() -> Iterator[None]:
    """Servers that were given are left as they were found."""
    yield
    leave_stack_place()


@pytest.fixture(scope="session", params=sorted(HOUSES))
def house_name(request: pytest.FixtureRequest) -> str:
    """The house that this run of the test is about."""
    return str(request.param)


def only(name: str, because: str) -> pytest.MarkDecorator:
    """Marks tests, or as `pytestmark` a module, that are about one house. It says why the other is left out."""
    assert because
    if name not in HOUSES:
        return pytest.mark.skip(f"the {name} house is left out of this run")
    return pytest.mark.parametrize("house_name", [name], indirect=True)


@contextmanager
def running_house(name: str, folder: Path, settings: Mapping[str, SettingValue] | None = None) -> Iterator[House]:
    """A house that runs inside the block, its log shown with failures; for fixtures of wider scope."""
    own = HOUSES[name](folder, settings)
    _alive.append(own)
    try:
        own.start()
        yield own
    finally:
        _alive.remove(own)
        own.discard()


@pytest.fixture(scope="session")
def house(house_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running house with default settings, shared by the whole session."""
    with running_house(house_name, tmp_path_factory.mktemp(house_name)) as shared:
        yield shared


@pytest.fixture
def build_house(house_name: str, tmp_path: Path) -> Iterator[BuildHouse]:
    """Makes houses of this test's own, not started; all are discarded at the end."""
    built: list[House] = []

    def build(servers: Addresses | None = None, **settings: SettingValue) -> House:
        folder = tmp_path / f"house-{len(built) + 1}"
        folder.mkdir()
        if servers is None:
            built.append(HOUSES[house_name](folder, settings))
        else:
            assert house_name == "stack", "only the stack house stands on servers"
            built.append(StackHouse(folder, settings, servers))
        _alive.append(built[-1])
        return built[-1]

    yield build
    for one in built:
        _alive.remove(one)
        one.discard()


@pytest.fixture
def serve(build_house: BuildHouse) -> BuildHouse:
    """Starts houses of this test's own, with the settings it names."""

    def start(servers: Addresses | None = None, **settings: SettingValue) -> House:
        own = build_house(servers, **settings)
        own.start()
        return own

    return start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens clients of any house; they are closed when the test ends."""
    opened: list[Client] = []

    def open_client(house: House, headers: Mapping[str, str] | None = None) -> Client:
        opened.append(Client(house.url, headers))
        return opened[-1]

    yield open_client
    for one in opened:
        await one.http.aclose()


@pytest.fixture
async def client(house: House, connect: Connect) -> Client:
    """A client of the shared house."""
    return connect(house)


@pytest.fixture
async def application(client: Client) -> Application:
    """A fresh application of the shared house."""
    return await client.create_application()


@pytest.fixture
async def chat(client: Client, application: Application) -> ChatAt:
    """A fresh chat in the fresh application."""
    return await client.create_chat(application["token"])


@pytest.fixture
async def other_chat(client: Client) -> ChatAt:
    """A fresh chat in an application of its own."""
    return await client.create_chat((await client.create_application("Another application"))["token"])


@pytest.fixture(scope="session")
def servers() -> Addresses:
    """The servers of the run."""
    if not wanted():
        pytest.skip(f"this machine has no {', no '.join(missing())}")
    return run_servers().addresses()


@pytest.fixture(scope="session")
def mysql_url(servers: Addresses) -> str:
    """The run's MySQL or MariaDB; no database is named."""
    return servers.mysql_url


@pytest.fixture(scope="session")
def redis_url(servers: Addresses) -> str:
    """The run's Redis."""
    return servers.redis_url


@pytest.fixture(scope="session")
def elasticsearch_url(servers: Addresses) -> str:
    """The run's Elasticsearch."""
    return servers.elasticsearch_url


@pytest.fixture
def own_mysql() -> Iterator[MariaDBServer]:
    """A MariaDB of this test's own."""
    with own_server(MariaDBServer) as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    with own_server(RedisServer) as server:
        yield server


@pytest.fixture
def own_elasticsearch() -> Iterator[ElasticsearchServer]:
    """An Elasticsearch of this test's own. It takes ten seconds and more to start."""
    with own_server(ElasticsearchServer) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """Three Redis nodes that are one."""
    need(RedisServer)
    with server_folder() as folder, RedisCluster(folder / "cluster") as cluster:
        _alive.extend(cluster.nodes)
        yield cluster
        for node in cluster.nodes:
            _alive.remove(node)


Own = TypeVar("Own", bound=Server)


@contextmanager
def own_server(kind: type[Own]) -> Iterator[Own]:
    """A server that runs inside the block, its log shown with failures; for fixtures of wider scope."""
    need(kind)
    with server_folder() as folder:
        server = kind(folder / "server")
        _alive.append(server)
        try:
            server.start()
            yield server
        finally:
            _alive.remove(server)
            server.kill()


def own(
    mysql: MariaDBServer | None = None,
    redis: RedisServer | RedisCluster | None = None,
    elasticsearch: ElasticsearchServer | None = None,
) -> Addresses:
    """The servers of the run, but for these."""
    given = {"mysql_url": mysql, "redis_url": redis, "elasticsearch_url": elasticsearch}
    urls = {name: server.url for name, server in given.items() if server is not None}
    return replace(run_servers().addresses(), **urls)


def need(kind: type[Server]) -> None:
    """Leave the test out where this server can't be started, unless it is required."""
    if not kind.is_installed() and not required():
        pytest.skip(f"this machine has no {kind.name}")


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    """Long texts are named by their start and length, so that test ids stay readable."""
    return f"{val[:16]!r}..{len(val)}" if isinstance(val, bytes | str) and len(val) > 40 else None
