"""The server's memory: at rest, over a large database, under load, with many live readers, importing.

Resident memory from /proc, so pages of the database that are mapped count, and pages that the kernel
merely caches do not. Under load means that single messages, batches and pages follow each other on the
large database; the peak of that server's whole life counts. Beside the bare ASGI app: what Python and the
server software need by themselves.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.houses import Server
from bench.load import Load, get_request, run_load
from bench.measure import Contestant, Goal, Row, Sample, Stage
from bench.scenarios.batches import BatchPoster
from bench.scenarios.live import AHEAD, live_chat
from bench.scenarios.pages import CONNECTIONS, pages_of
from bench.scenarios.posting import CHATS, CHATS_PER_APPLICATION, Poster
from bench.workbench import Workbench

AT_REST = Goal("figure", "at_most", 80.0)
AT_ALL = Goal("figure", "at_most", 150.0)
POSTING_CONNECTIONS = 64


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


def set_up(bench: Workbench, _stack: ExitStack) -> Stage:
    """A new server for each figure of each round."""
    large = bench.large

    def measure_new(_seconds: float) -> Sample:
        with bench.server() as server:
            server.rest()
            return {"mib": server.child.resident_mib()}

    def measure_large(seconds: float) -> Sample:
        with bench.server(large.storage) as server:
            server.rest()
            at_rest = server.child.resident_mib()
            put_under_load(bench, server, seconds)
            return {
                "mib": at_rest,
                "peak_mib": server.child.peak_mib(),
                "after_mib": server.child.resident_mib(),
            }

    def measure_live(seconds: float) -> Sample:
        with bench.server() as server:
            live_chat(bench, server).post_to_readers(AHEAD, seconds)
            return {"mib": server.child.peak_mib()}

    def measure_import(_seconds: float) -> Sample:
        imported = large.imported
        return {"mib": imported.peak_mib, "import_s": imported.seconds, "indexing_s": large.indexing_s}

    def measure_bare(_seconds: float) -> Sample:
        return {"mib": bench.bare.child.resident_mib()}

    def row(label: str, contestant: str, figure: str = "mib", goal: Goal = AT_ALL) -> Row:
        return Row(f"memory, {label}", contestant, figure, "MiB", "bare", "bare ASGI", "mib", goal)

    measures = {
        "new": measure_new,
        "large": measure_large,
        "live": measure_live,
        "import": measure_import,
        "bare": measure_bare,
    }
    full = f"{large.messages:,}"
    return Stage(
        contestants=[Contestant(name, measure, warm_up=False) for name, measure in measures.items()],
        rows=[
            row("at rest, new", "new", goal=AT_REST),
            row(f"at rest, {full}", "large", goal=AT_REST),
            row(f"under load, {full}", "large", "peak_mib"),
            row(f"{bench.sizes.readers:,} live readers", "live"),
            row(f"importing {full}", "import"),
        ],
        rounds_at_most=2,
    )
