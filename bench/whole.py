"""The stack house as a whole, for the scenarios that know a house only as a server that is started and filled.

One API process, one worker and the three servers; a storage is a place on them. What one request costs is what all of
them spend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.building import Plan, build_servers
from bench.houses import IMPORT_TIMEOUT_S, REST_TIMEOUT_S, Imported, Server
from bench.processes import Child, wait_for_rest
from bench.stack import Measured, Place, Stack


@dataclass(frozen=True)
class WholeServer(Server):
    """An API process with its worker."""

    worker: Child
    behind: Sequence[Measured]

    def rest(self, timeout_s: float = REST_TIMEOUT_S) -> float:
        waited_s = super().rest(timeout_s)
        return waited_s + wait_for_rest([self.child, self.worker, *self.behind], timeout_s)

    def cpu_s(self) -> float:
        return self.child.cpu_s() + self.worker.cpu_s() + sum(server.cpu_s() for server in self.behind)

    def stop(self) -> None:
        super().stop()
        self.worker.stop()


class Whole:
    """A `House`. `stack` gives the servers when they are first needed; `open_places` takes places down at the end."""

    name = "stack"

    def __init__(self, stack: Callable[[], Stack], open_places: ExitStack) -> None:
        self._stack = stack
        self._open = open_places
        self._places: dict[Path, Place] = {}

    def spawn(self, storage: Path) -> WholeServer:
        """Start an API process and a worker over a storage, without waiting for them."""
        place = self._place(storage)
        api = place.spawn_api()
        return WholeServer(api.child, api.port, api.api, place.spawn_worker(), self._stack().servers)

    def fill(self, storage: Path, file: Path, application: str) -> Imported:
        """Run `chat-system import`, with a worker beside it."""
        place = self._place(storage)
        worker = place.spawn_worker()
        try:
            child = place.spawn("import", {}, str(file), "--name", application)
            return Imported(*child.run_to_end(IMPORT_TIMEOUT_S))
        finally:
            worker.stop()

    def build(self, storage: Path, plan: Plan) -> None:
        """Let `chat-system migrate` make the tables, and fill them and the index."""
        place = self._place(storage)
        place.spawn("migrate", {}).run_to_end(REST_TIMEOUT_S)
        build_servers(place.settings, plan)

    def _place(self, storage: Path) -> Place:
        if storage not in self._places:
            self._places[storage] = self._open.enter_context(self._stack().place())
        return self._places[storage]
