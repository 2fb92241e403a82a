"""Requests by the hundred thousand, over raw sockets: every answer is judged, and the server's memory is watched.

    found = fuzz(url, pid, seed=1, requests=1_000_000, tell=print)

Requests go out in bunches over connections that are kept; answers come back in the same order. Now and then a
connection gets bytes that are no request, and is closed by the one side or the other. The server must answer every
request that it was sent on a connection that it has not said it would close.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from campaign.answers import Answer, Judge
from campaign.requests import CREATE, Made, Requests

CONNECTIONS = 16
BUNCH = 8
BUNCH_MAX_BYTES = 60_000
BROKEN_SHARE = 0.01
ANSWER_TIMEOUT_S = 30.0
PIECE_BYTES = 65_536
APPLICATIONS, CHATS, MESSAGES = 3, 3, 5
MEMORY_EVERY = 2_000
TELL_EVERY = 100_000
FAULTS_SHOWN = 40
EARLY_SHARE = 0.2
"""From this share of the requests on, memory is expected not to grow any more."""


@dataclass
class Fuzzed:
    """What came of it. Memory is resident MiB of the server, early (after a fifth) and at its highest after that."""

    seed: int
    requests: int = 0
    broken: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    early_mib: float = 0.0
    highest_mib: float = 0.0
    last_mib: float = 0.0

    def blame(self, what: str, raw: bytes, answer: Answer | None) -> None:
        """Note what is wrong, with an example."""
        self.faults[what.split(":", maxsplit=1)[0]] += 1
        if len(self.examples) < FAULTS_SHOWN:
            told = "nothing" if answer is None else f"{answer.status} {answer.body[:300]!r}"
            self.examples.append(f"{what}: {raw[:400]!r} was answered {told}")


class Connection:
    """One connection that is kept; answers are read by hand."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), ANSWER_TIMEOUT_S)
        self._waiting = b""

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes. Whether the server has hung up shows when an answer is read."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str) -> Answer | None:
        """The next answer; None when the connection ended without one.

        Raises:
            TimeoutError: none came in ANSWER_TIMEOUT_S.
        """
        while (end := self._waiting.find(b"\r\n\r\n")) < 0:
            if not self._receive():
                return None
        status_line, *lines = self._waiting[:end].decode("latin-1").split("\r\n")
        self._waiting = self._waiting[end + 4 :]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(status_line.split(" ", 2)[1])
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"")
        body = self._chunked() if "transfer-encoding" in headers else self._exactly(int(headers["content-length"]))
        return None if body is None else Answer(status, headers, body)

    def _receive(self) -> bool:
        try:
            piece = self._socket.recv(PIECE_BYTES)
        except ConnectionError:
            return False
        self._waiting += piece
        return bool(piece)

    def _exactly(self, length: int) -> bytes | None:
        while len(self._waiting) < length:
            if not self._receive():
                return None
        body, self._waiting = self._waiting[:length], self._waiting[length:]
        return body

    def _chunked(self) -> bytes | None:
        body = b""
        while True:
            while (end := self._waiting.find(b"\r\n")) < 0:
                if not self._receive():
                    return None
            size = int(self._waiting[:end].split(b";")[0], 16)
            self._waiting = self._waiting[end + 2 :]
            piece = self._exactly(size + 2)
            if piece is None:
                return None
            if not size:
                return body
            body += piece[:-2]


class Fuzz:
    """One run against one server."""

    def __init__(self, url: str, pid: int, seed: int) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._url, self._pid = url, pid
        self._chance = random.Random(seed)
        document = json.loads(self._ask("GET", "/openapi.json"))
        self._judge = Judge(document)
        self._requests = Requests(document, self._chance, [self._application() for _ in range(APPLICATIONS)])
        self._connections = [Connection(*self._address) for _ in range(CONNECTIONS)]
        self.found = Fuzzed(seed)

    def run(self, requests: int, tell: Callable[[str], None], minutes: float = math.inf) -> Fuzzed:
        """Send so many requests, or as many as there is time for, and judge what comes back."""
        found, began, told, measured = self.found, time.monotonic(), 0, 0
        while found.requests < requests and time.monotonic() - began < minutes * 60:
            self._bunches()
            if found.requests - measured >= MEMORY_EVERY:
                measured = found.requests
                done = max(found.requests / requests, (time.monotonic() - began) / (minutes * 60))
                self._measure(early=done < EARLY_SHARE)
            if found.requests - told >= TELL_EVERY:
                told, took = found.requests, time.monotonic() - began
                tell(f"{told} requests in {took:.0f} s, {sum(found.faults.values())} faults, {found.last_mib:.0f} MiB")
        found.seconds = time.monotonic() - began
        for one in self._connections:
            one.close()
        return found

    def _bunches(self) -> None:
        """A bunch on each connection; then, on one of them, what may end it."""
        sent = [(index, self._bunch()) for index in range(len(self._connections))]
        for index, bunch in sent:
            self._connections[index].send(b"".join(made.raw for made in bunch))
        for index, bunch in sent:
            self._read(index, bunch)
        if self._chance.random() < BROKEN_SHARE * CONNECTIONS * BUNCH:
            self._break(self._chance.randrange(CONNECTIONS))

    def _bunch(self) -> list[Made]:
        bunch: list[Made] = []
        size = 0
        while len(bunch) < BUNCH and size < BUNCH_MAX_BYTES:
            bunch.append(self._requests.make())
            size += len(bunch[-1].raw)
        return bunch

    def _read(self, index: int, bunch: list[Made]) -> None:
        connection, found = self._connections[index], self.found
        for made in bunch:
            try:
                answer = connection.answer(made.method)
            except TimeoutError:
                answer = None
            if answer is None:
                found.blame("no answer", made.raw, None)
                self._renew(index)
                return
            found.requests += 1
            name = made.operation.name if made.operation else "none"
            found.statuses[str(answer.status)] += 1
            found.reached.add(f"{name} {answer.status}")
            if fault := self._judge.fault(made, answer):
                found.blame(fault, made.raw, answer)
            if name == CREATE and answer.status == 201:
                self._requests.learn(json.loads(answer.body)["token"])
            if answer.is_last:
                # What was sent after it counts as not sent.
                self._renew(index)
                return

    def _break(self, index: int) -> None:
        """Send what is no request, hang up half, and take what the server says to it, if anything."""
        connection, raw = self._connections[index], self._requests.broken()
        self.found.broken += 1
        connection.send(raw)
        connection.end()
        try:
            while (answer := connection.answer("GET")) is not None:
                if fault := self._judge.fault_of_broken(answer):
                    self.found.blame(f"{fault} of bytes that are no request", raw, answer)
        except TimeoutError:
            self.found.blame("neither an answer nor an end", raw, None)
        self._renew(index)

    def _renew(self, index: int) -> None:
        self._connections[index].close()
        self._connections[index] = Connection(*self._address)

    def _measure(self, *, early: bool) -> None:
        found = self.found
        found.last_mib = resident_mib(self._pid)
        if early:
            found.early_mib = max(found.early_mib, found.last_mib)
        found.highest_mib = max(found.highest_mib, found.last_mib)

    def _application(self) -> str:
        token = str(json.loads(self._ask("POST", "/applications", b'{"name":"Fuzzed"}'))["token"])
        for chat in range(1, CHATS + 1):
            self._ask("POST", f"/applications/{token}/chats", b"{}")
            for number in range(MESSAGES):
                path = f"/applications/{token}/chats/{chat}/messages"
                self._ask("POST", path, json.dumps({"body": f"message {number}"}).encode())
        return token

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self._url + path, data=body, method=method)  # noqa: S310 - a house of ours
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - the same
            return bytes(answer.read())


def resident_mib(pid: int) -> float:
    """The memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
