"""Live fan-out: one chat, many readers of its events, one poster.

Beside a process that writes the same number of bytes to as many raw sockets for each POST, under the same
client. Twice: one message at a time, for the latency from the POST until each reader has it, and with
several messages under way, for deliveries a second.
"""

from __future__ import annotations

import http.client
from contextlib import ExitStack

import msgspec

from bench.api import ChatPath
from bench.corpus import Line
from bench.houses import Server, running, spawn_limit
from bench.live_load import LiveLoad, run_live_load
from bench.load import Load, post_request, run_load
from bench.measure import Contestant, Row, Sample, Stage, Wrong
from bench.workbench import Workbench

AHEAD = 32
BODY_BYTES = 43
"""The median of real chat."""
STREAM_TIMEOUT_S = 10.0


class LiveChat:
    """One chat that is posted to while it is read."""

    def __init__(self, bench: Workbench, server: Server, chat: ChatPath) -> None:
        body = " ".join(line.body for line in bench.corpus.messages(0, BODY_BYTES))[:BODY_BYTES]
        self.bench = bench
        self.server = server
        self.chat = chat
        self.request = post_request(chat.messages, msgspec.json.encode(Line("bench", body)))
        self.posted = 0

    def post_once(self) -> None:
        """Post the message with nobody reading."""
        load = Load(self.server.port, (self.request,), 201, connections=1, seconds=0.0)
        self.posted += self.bench.in_client(run_load, load).count

    def post_to_readers(self, ahead: int, seconds: float) -> Sample:
        """Post for so long to all readers; with the server's peak memory so far."""
        load = LiveLoad(
            port=self.server.port,
            events_path=f"{self.chat.path}/events",
            request=self.request,
            revision=self.posted,
            readers=self.bench.sizes.readers,
            ahead=ahead,
            seconds=seconds,
        )
        deliveries = self.bench.in_client(run_live_load, load)
        self.posted += deliveries.messages
        return {**deliveries.sample(), "server_peak_mib": self.server.child.peak_mib()}


def live_chat(bench: Workbench, server: Server) -> LiveChat:
    """A new chat of a server of ours."""
    return LiveChat(bench, server, server.api.create_chats(1, 1)[0])


def event_bytes(port: int, chat: ChatPath) -> int:
    """The size of the chat's latest event as the server sends it.

    Raises:
        Wrong: the stream does not replay it.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STREAM_TIMEOUT_S)
    try:
        connection.request("GET", f"{chat.path}/events?after=0")
        response = connection.getresponse()
        event = b""
        while not event.endswith(b"\n\n") or b"data:" not in event:
            if event.endswith(b"\n\n"):
                event = b""
            if not (line := response.readline()):
                raise Wrong(f"the stream ended with {event!r}")
            event += line
        return len(event)
    finally:
        connection.close()


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """The server and the raw sockets, each read and posted to in two ways."""
    server = stack.enter_context(bench.server())
    ours = live_chat(bench, server)
    ours.post_once()
    size = event_bytes(server.port, ours.chat)
    raw = stack.enter_context(
        running(spawn_limit("raw_sockets", str(size), log=bench.folder / "raw_sockets.log"), "/ready")
    )
    bare = LiveChat(bench, raw, ours.chat)
    readers = f"{bench.sizes.readers:,}"

    def contestant(name: str, live: LiveChat, ahead: int) -> Contestant:
        return Contestant(name, lambda seconds: live.post_to_readers(ahead, seconds))

    def rows(label: str, name: str, limit: str) -> list[Row]:
        raw_label = f"raw writes of {size} bytes"
        return [
            Row(f"live to {readers}, {label}", name, "deliveries_per_s", "events/s", limit, raw_label),
            Row(f"live to {readers}, {label}: p99", name, "p99_ms", "ms", limit, raw_label),
        ]

    return Stage(
        contestants=[
            contestant("one", ours, 1),
            contestant("one, raw", bare, 1),
            contestant("several", ours, AHEAD),
            contestant("several, raw", bare, AHEAD),
        ],
        rows=[
            *rows("one at a time", "one", "one, raw"),
            *rows(f"{AHEAD} under way", "several", "several, raw"),
        ],
        rest=server.rest,
        check=lambda: server.api.check_complete(ours.chat, ours.posted),
    )
