"""Redis, alone or as a cluster of three: real processes, every write on disk when it is answered."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.servers.process import Server, free_port

DURABLE = {"appendonly": "yes", "appendfsync": "always", "aof-load-truncated": "no", "save": ""}
"""What the documents tell operators to set."""

CHECK_TIMEOUT_S = 60

ANSWER_TIMEOUT_S = 5
MEETING_TIMEOUT_S = 30
POLL_INTERVAL_S = 0.03
SLOTS = 16384
NODES = 3


MEND = Path(__file__).parents[2] / "deploy" / "mend-redis.sh"


class RedisServer(Server):
    """redis-server. Its settings may be named: RedisServer(folder, {"appendfsync": "everysec"})."""

    name = "Redis"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.settings: dict[str, str] = {**DURABLE, **(settings or {})}
        """As in redis.conf; they may be changed between two starts."""

    @classmethod
    def is_installed(cls) -> bool:
        return shutil.which("redis-server") is not None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.data.mkdir()

    def spawn(self) -> None:
        self.mend()
        super().spawn()

    def mend(self) -> None:
        """Cut the file behind its last whole transaction, as the documents tell operators to before every start."""
        subprocess.run(
            ["sh", str(MEND), str(self.data / "appendonlydir")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=CHECK_TIMEOUT_S,
            check=True,
        )

    def command(self) -> list[str]:
        ours = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.data), "daemonize": "no"}
        command = ["redis-server"]
        for name, value in (ours | self.settings).items():
            command += [f"--{name}", value]
        return command

    def version(self) -> str:
        """From INFO. While it loads its data it answers INFO and nothing else: it is not ready."""
        self.ask("PING")
        said = self.ask("INFO", "server")
        return next(line for line in said.splitlines() if line.startswith("redis_version:")).partition(":")[2]

    def ask(self, *words: str) -> str:
        """Send one command on a connection of its own; the answer, if it is one text. Any error is a ValueError."""
        command = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_TIMEOUT_S) as connection:
            connection.sendall(command.encode())
            with connection.makefile("rb") as answer:
                first = answer.readline().decode().rstrip("\r\n")
                if first.startswith("$"):
                    return answer.read(int(first[1:])).decode()
        if not first.startswith(("+", ":")):
            raise ValueError(f"{words[0]}: {first}")
        return first[1:]

    def empty(self) -> None:
        """Forget everything, as a lost disk would: all keys at once, and the server goes on."""
        self.ask("FLUSHALL")


class ClusterNode(RedisServer):
    """One node of a Redis Cluster."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"cluster-enabled": "yes", "cluster-node-timeout": "5000"})
        self.bus_port = free_port()
        self.settings["cluster-port"] = str(self.bus_port)


class RedisCluster:
    """Three nodes without replicas, each with a third of the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes: Sequence[ClusterNode] = [ClusterNode(folder / f"node-{number}") for number in range(1, NODES + 1)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """One of its nodes; clients find the others."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> None:
        """Start the nodes, introduce them to each other, and wait until all slots are served."""
        for node in self.nodes:
            node.folder.parent.mkdir(exist_ok=True)
            node.start()
        first = self.nodes[0]
        for index, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
            low, high = SLOTS * index // NODES, SLOTS * (index + 1) // NODES - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(low), str(high))
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(first.port), str(first.bus_port))
        deadline = time.monotonic() + MEETING_TIMEOUT_S
        while not all(self._is_whole(node) for node in self.nodes):
            assert time.monotonic() < deadline, f"the cluster of {self.nodes} did not form"
            time.sleep(POLL_INTERVAL_S)

    def kill(self) -> None:
        """End all nodes as a crash would."""
        for node in self.nodes:
            node.kill()

    @staticmethod
    def _is_whole(node: ClusterNode) -> bool:
        with contextlib.suppress(OSError, ValueError):
            said = node.ask("CLUSTER", "INFO")
            return "cluster_state:ok" in said and f"cluster_known_nodes:{NODES}" in said
        return False
