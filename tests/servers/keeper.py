"""The process that runs one set of servers for a whole run of the tests: started on demand, gone with its last user.

    python -m tests.servers.keeper FOLDER MySQL Redis Elasticsearch

It starts the named servers, writes where they are to FOLDER/servers.json, and waits until no process holds a lock on
FOLDER/users.lock any more. The system releases the locks of a process that ends in whatever way, so the servers can't
outlive the run; their leashes (tests/servers/process.py) cover the end of this process itself.
"""

from __future__ import annotations

import fcntl
import json
import signal
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path

from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.process import Server, server_folder
from tests.servers.redis import RedisServer

SERVERS: dict[str, type[Server]] = {"MySQL": MariaDBServer, "Redis": RedisServer, "Elasticsearch": ElasticsearchServer}

USERS_LOCK = "users.lock"
KEEPER_LOCK = "keeper.lock"
ADDRESSES = "servers.json"
FAILURE = "failed.txt"


def keep(folder: Path, names: list[str]) -> None:
    """Run the servers until nobody uses them."""
    with ExitStack() as ends:
        data = ends.enter_context(server_folder())
        # Elasticsearch first: it takes longest, and the others start meanwhile.
        servers = {name: SERVERS[name](data / name) for name in sorted(names)}
        for server in servers.values():
            ends.callback(server.kill)
            server.spawn()
        for server in servers.values():
            server.wait_until_ready()
        found = {name: {"url": server.url, "version": server.version()} for name, server in servers.items()}
        unfinished = folder / f"{ADDRESSES}.new"
        unfinished.write_text(json.dumps(found))
        unfinished.rename(folder / ADDRESSES)
        with (folder / USERS_LOCK).open("ab") as users:
            fcntl.flock(users, fcntl.LOCK_EX)


def main() -> None:
    """Keep the servers, unless another keeper does."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    # Ctrl-C is for those who test; this process ends after them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (folder / KEEPER_LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            keep(folder, names)
        except Exception:  # noqa: BLE001 - whoever waits for the servers shows it
            (folder / FAILURE).write_text(traceback.format_exc())


if __name__ == "__main__":
    main()
