"""The server's memory: at rest, over a large database, under load, with many live readers, importing.

What a live reader takes is the memory with all of them open, and nothing posted, less the memory at rest. Its limit is
what an idle connection takes of the bare ASGI app. In stack mode the API process is measured, and at rest the worker.

Resident memory from /proc, so pages of the database that are mapped count, and pages that the kernel
merely caches do not. Under load means that single messages, batches and pages follow each other on the
large database; the peak of that server's whole life counts. Beside the bare ASGI app: what Python and the
server software need by themselves.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.houses import Server, running
from bench.load import Load, get_request, run_load
from bench.measure import Contestant, Goal, Row, Sample, Stage, Wrong
from bench.processes import MIB
from bench.scenarios.batches import BatchPoster
from bench.scenarios.live import AHEAD, live_chat
from bench.scenarios.pages import CONNECTIONS, pages_of
from bench.scenarios.posting import CHATS, CHATS_PER_APPLICATION, Poster
from bench.whole import WholeServer
from bench.workbench import Workbench

MB = 1e6 / (MIB * 1024)
"""A megabyte, in MiB."""

AT_REST = Goal("figure", "at_most", 80 * MB)
STACK_AT_REST = Goal("figure", "at_most", 90 * MB)
AT_ALL = Goal("figure", "at_most", 150.0)
A_READER = Goal("figure", "at_most", 30.0)
POSTING_CONNECTIONS = 64
ANSWER_TIMEOUT_S = 30.0


def put_under_load(bench: Workbench, server: Server, seconds: float) -> None:
    """Single messages, batches and pages, one after the other, checked like in their own scenarios."""
    chats = server.api.create_chats(2 * CHATS, CHATS_PER_APPLICATION)
    singles = Poster(bench, server, chats[:CHATS], POSTING_CONNECTIONS)
    batches = BatchPoster(bench, server.port, chats[CHATS:])
    singles.post(seconds)
    batches.post(seconds)
    pages = tuple(get_request(path) for path in pages_of(bench.large))
    bench.in_client(run_load, Load(server.port, pages, 200, CONNECTIONS, seconds))
    singles.check(server.api)
    server.rest()


@contextmanager
def open_connections(port: int, path: str, count: int) -> Iterator[None]:
    """So many connections whose GET succeeded, and that stay open until the block ends.

    Raises:
        Wrong: one of them did not.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    with ExitStack() as closing:
        for _ in range(count):
            connection = closing.enter_context(socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT_S))
            connection.sendall(request)
            head = connection.recv(4096)
            if not head.startswith(b"HTTP/1.1 2"):
                raise Wrong(f"GET {path} should succeed, but: {head!r}")
        yield


def at_rest(server: Server) -> Sample:
    """The memory of the server, and of its worker where it has one."""
    if isinstance(server, WholeServer):
        return {"mib": server.child.resident_mib(), "worker_mib": server.worker.resident_mib()}
    return {"mib": server.child.resident_mib()}


def kb_each(server: Server, path: str, count: int) -> float:
    """What each of so many open connections adds to a server's memory, in kB."""
    before_mib = server.child.resident_mib()
    with open_connections(server.port, path, count):
        return (server.child.resident_mib() - before_mib) / MB * 1000 / count


def set_up(bench: Workbench, _stack: ExitStack) -> Stage:
    """A new server for each figure of each round."""
    large = bench.large
    readers = bench.sizes.readers

    def measure_new(_seconds: float) -> Sample:
        with bench.server() as server:
            server.rest()
            return at_rest(server)

    def measure_large(seconds: float) -> Sample:
        with bench.server(large.storage) as server:
            server.rest()
            before = at_rest(server)
            put_under_load(bench, server, seconds)
            return {
                **before,
                "peak_mib": server.child.peak_mib(),
                "after_mib": server.child.resident_mib(),
            }

    def measure_live(seconds: float) -> Sample:
        with bench.server() as server:
            live_chat(bench, server).post_to_readers(AHEAD, seconds)
            return {"mib": server.child.peak_mib()}

    def measure_readers(_seconds: float) -> Sample:
        with bench.server() as server:
            chat = server.api.create_chats(1, 1)[0]
            server.rest()
            return {"kb": kb_each(server, f"{chat.path}/events", readers)}

    def measure_connections(_seconds: float) -> Sample:
        with running(bench.spawn_bare(), "/") as server:
            return {"kb": kb_each(server, "/", readers)}

    def measure_import(_seconds: float) -> Sample:
        assert large.imported is not None
        return {
            "mib": large.imported.peak_mib,
            "import_s": large.imported.seconds,
            "indexing_s": large.indexing_s,
        }

    def measure_bare(_seconds: float) -> Sample:
        return {"mib": bench.bare.child.resident_mib()}

    measures = {
        "new": measure_new,
        "large": measure_large,
        "live": measure_live,
        "readers": measure_readers,
        "connections": measure_connections,
        "bare": measure_bare,
    }
    if large.imported is not None:
        measures["import"] = measure_import
    return Stage(
        contestants=[Contestant(name, measure, warm_up=False) for name, measure in measures.items()],
        rows=rows_of(bench, f"{large.messages:,}", is_imported=large.imported is not None),
        rounds_at_most=2,
    )


def rows_of(bench: Workbench, full: str, *, is_imported: bool) -> list[Row]:
    """What is shown of the figures."""
    readers = bench.sizes.readers
    is_stack = bench.house.name == "stack"
    goal_at_rest = STACK_AT_REST if is_stack else AT_REST

    def row(label: str, contestant: str, figure: str = "mib", goal: Goal = AT_ALL) -> Row:
        return Row(f"memory, {label}", contestant, figure, "MiB", "bare", "bare ASGI", "mib", goal)

    return [
        row("at rest, new", "new", goal=goal_at_rest),
        row(f"at rest, {full}", "large", goal=goal_at_rest),
        *([row(f"at rest, {full}, worker", "large", "worker_mib", goal_at_rest)] if is_stack else []),
        row(f"under load, {full}", "large", "peak_mib"),
        row(f"{readers:,} live readers", "live"),
        Row(
            *(f"memory, each of {readers:,} open live readers", "readers", "kb", "kB"),
            *("connections", "bare ASGI, an idle connection"),
            goal=A_READER,
        ),
        *([row(f"importing {full}", "import")] if is_imported else []),
    ]
