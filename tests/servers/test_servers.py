"""The servers of the tests themselves: they come back with their data, and never outlive those who use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.servers.mariadb import MariaDBServer
from tests.servers.process import server_folder
from tests.servers.redis import RedisCluster, RedisServer
from tests.servers.shared import GIVEN, ROOT, RunServers

PATIENCE_S = 30.0
POLL_INTERVAL_S = 0.02
USER = """
    import sys, time
    from pathlib import Path
    from tests.servers.shared import RunServers
    servers = RunServers(Path(sys.argv[1]))
    print(servers.addresses().redis_url, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for servers' data."""
    with server_folder() as made:
        yield made


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does, soon."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def is_gone(url: str) -> bool:
    """Whether nothing listens at the Redis url."""
    other = RedisServer(Path("unused"))
    other.port = int(url.rpartition(":")[2].partition("/")[0])
    try:
        other.version()
    except ConnectionRefusedError:
        return True
    except OSError:
        # It ends at this moment.
        return False
    return False


def test_a_killed_server_comes_back_with_its_data_at_its_port(own_redis: RedisServer) -> None:
    """What was answered is there after SIGKILL, after SIGTERM, and after being stopped for a moment."""
    redis, url = own_redis, own_redis.url
    redis.ask("SET", "key", "value")
    for hurt in (redis.kill, redis.stop, redis.restart):
        hurt()
        if not redis.running:
            redis.start()
        assert (redis.url, redis.ask("GET", "key")) == (url, "value")
    redis.freeze()
    redis.thaw()
    assert redis.ask("GET", "key") == "value"
    redis.empty()
    assert redis.ask("DBSIZE") == "0"


def test_a_killed_mariadb_comes_back(own_mysql: MariaDBServer) -> None:
    """It lets its account in again, and tells its version."""
    version = own_mysql.version()
    assert "MariaDB" in version
    own_mysql.restart()
    assert own_mysql.version() == version


def test_a_cluster_serves_every_slot(redis_cluster: RedisCluster) -> None:
    """Keys of all three nodes, each known to its own."""
    answers = []
    for node in redis_cluster.nodes:
        for key in ("a", "b", "c", "d"):
            try:
                answers.append(node.ask("SET", key, "value"))
            except ValueError as refusal:
                assert "MOVED" in str(refusal)  # noqa: PT017 - most answers are no refusals
    assert answers == ["OK"] * 4


def test_a_server_ends_with_the_process_that_started_it(folder: Path) -> None:
    """Also when that one is killed and can tidy up nothing."""
    need(RedisServer)
    program = f"""
        import time
        from pathlib import Path
        from tests.servers.redis import RedisServer
        server = RedisServer(Path({str(folder / "orphan")!r}))
        server.start()
        print(server.url, flush=True)
        time.sleep(60)
    """
    with _python(program) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().decode().strip()
        assert not is_gone(url)
        owner.kill()
    assert becomes_true(lambda: is_gone(url))


def test_shared_servers_are_one_set_and_end_with_their_last_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes use the same; when one is killed they stay, when the other is killed they go."""
    need(RedisServer)
    # Only Redis is started: the others are not asked for more than their address.
    monkeypatch.setenv(GIVEN["MySQL"], "mysql://nobody@127.0.0.1:1")
    monkeypatch.setenv(GIVEN["Elasticsearch"], "http://127.0.0.1:1")
    monkeypatch.delenv(GIVEN["Redis"], raising=False)
    servers = RunServers()
    try:
        with _python(USER, str(servers.folder)) as one, _python(USER, str(servers.folder)) as other:
            assert one.stdout is not None
            assert other.stdout is not None
            url = one.stdout.readline().decode().strip()
            assert other.stdout.readline().decode().strip() == url
            one.kill()
            one.wait(PATIENCE_S)
            assert not is_gone(url)
            os.kill(other.pid, signal.SIGKILL)
            other.wait(PATIENCE_S)
            assert not is_gone(url), "this process uses them too"
    finally:
        servers.close()
    assert is_gone(url)


def _python(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], cwd=ROOT, stdout=subprocess.PIPE
    )
