"""Logs and metrics: what an operator sees.

Logs are structured (one JSON object a line, or columns for people) and go to standard error. Tokens and keys never
appear in one, nor in a metric's label: paths are named by their template.

Where several processes answer on one port, any of them shows the metrics of all: each mirrors its own into files
of a folder that they share (prometheus_client's multi-process mode), every MIRROR_EVERY_S and when it is scraped.

Not promised: the last second's counts of a process that was killed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from chat_system.errors import ConfigurationError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder which processes share their metrics in, by prometheus_client's convention."""

PLACE = "PROMETHEUS_MULTIPROC_PLACE"
"""The variable that says which of them this process is. Whoever follows a process that has died goes on with its
counters, so the folder does not grow with each death, which the usual process id would make it do."""

MIRROR_EVERY_S = 1.0

_mirrored: list[_Mirrored] = []
_sampled: list[tuple[Gauge, Callable[[], float]]] = []


class _Mirrored:
    """A metric's value in memory, as cheap to change as in a single process, and its mirror in the shared folder.

    The library's own value writes to its file on every change: 4 µs more for each request.
    """

    _multiprocess = True
    _in_file = values.MultiProcessValue(lambda: os.environ.get(PLACE) or str(os.getpid()))  # type: ignore[no-untyped-call]

    def __init__(self, *parameters: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        self._file = self._in_file(*parameters, **options)
        self._value: float = self._file.get()
        self._set_at: float | None = None
        self._changed = False
        _mirrored.append(self)

    def inc(self, amount: float) -> None:
        """Add to it."""
        with self._lock:
            self._value += amount
            self._changed = True

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace it."""
        with self._lock:
            self._value, self._set_at, self._changed = value, timestamp, True

    def get(self) -> float:
        """What it is now."""
        return self._value

    def mirror(self) -> None:
        """Bring the file up to date."""
        with self._lock:
            if self._changed:
                self._file.set(self._value, self._set_at)
                self._changed = False


class _SampledGauge(Gauge):
    """A gauge whose value is asked for, not told, in several processes as well as in one."""

    def set_function(self, f: Callable[[], float]) -> None:
        if SHARED_FOLDER in os.environ:
            _sampled.append((self, f))
        else:
            super().set_function(f)


class _Registry(CollectorRegistry):
    """The metrics of this process or, where several share a folder, of all of them."""

    def collect(self) -> Iterable[Metric]:
        if SHARED_FOLDER not in os.environ:
            _publish()
            return super().collect()
        mirror()
        return MultiProcessCollector(None).collect()  # type: ignore[no-untyped-call, no-any-return]


def mirror() -> None:
    """Let the other processes see this one's metrics as they are now. Nothing where there are no others."""
    _publish()
    for gauge, sample in _sampled:
        gauge.set(sample())
    for value in _mirrored:
        value.mirror()


def forget_gauges(place: str, folder: str) -> None:
    """What a process that has died had open and in flight is gone. Its counters stay."""
    mark_process_dead(place, folder)  # type: ignore[no-untyped-call]


if SHARED_FOLDER in os.environ:
    values.ValueClass = _Mirrored

# A second series for each counter that says only when it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = _Registry()


class _CountedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, in_buckets: Sequence[int], total: float) -> None:
        """How many fell into each bucket, the one without an upper bound last, and their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, in_buckets, strict=True):
            if count:
                bucket.inc(count)


SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

REQUESTS = Counter("chat_requests", "Answers sent.", ["operation", "status"], registry=REGISTRY)
REQUEST_SECONDS = _CountedHistogram(
    "chat_request_seconds",
    "From a request's first byte read to its answer handed to the server, streams apart.",
    ["operation"],
    buckets=SECONDS_BOUNDS,
    registry=REGISTRY,
)
IN_FLIGHT = _SampledGauge(
    "chat_requests_in_flight",
    "Requests being answered, streams apart.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
ACCEPTED = Counter("chat_messages_accepted", "Messages that were given a number.", registry=REGISTRY)
APPLIED = Counter("chat_facts_applied", "Facts that a worker has written to the store.", registry=REGISTRY)
INDEXED = Counter("chat_messages_indexed", "Messages brought into the search index.", registry=REGISTRY)
# Measured for each scrape by whoever answers it: the latest measurement is the truth for all processes.
BACKLOG = Gauge(
    "chat_backlog_entries",
    "Recorded facts not applied yet.",
    ["projection"],
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
LAG = Gauge(
    "chat_lag_seconds",
    "Age of the oldest fact not applied yet.",
    ["projection"],
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
SET_ASIDE = Gauge(
    "chat_set_aside_entries",
    "Facts that could not be applied and wait for an operator.",
    ["projection"],
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
SET_ASIDE_TOTAL = Counter(
    "chat_entries_set_aside", "Times an entry was set aside, retried ones again.", ["projection"], registry=REGISTRY
)
DROPPED = Counter(
    "chat_entries_dropped",
    "Entries that were not applied on purpose, by reason.",
    ["reason"],
    registry=REGISTRY,
)
EPOCHS_RAISED = Counter(
    "chat_epochs_raised",
    "Times a partition of the journal was found emptied and was begun anew from the store.",
    registry=REGISTRY,
)
FLUSH_UNITS = Histogram(
    "chat_flush_writes",
    "Writes that shared one fsync.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    registry=REGISTRY,
)
FLUSH_SECONDS = Histogram(
    "chat_flush_seconds",
    "Duration of a commit, its fsync included.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
    registry=REGISTRY,
)
BACKSTOP_HITS = Counter(
    "chat_backstop_hits",
    "Times a primary key refused a number that was allotted twice. Must stay 0.",
    registry=REGISTRY,
)
DATABASE_ERRORS = Counter("chat_database_errors", "Failed reads, scans and transactions.", registry=REGISTRY)
LIVE_READERS = Gauge("chat_live_readers", "Open event streams.", registry=REGISTRY, multiprocess_mode="livesum")
LIVE_CUT = Counter(
    "chat_live_readers_cut", "Event streams cut off because their reader was too slow.", registry=REGISTRY
)


class Answered:
    """Counts the answers of one operation in plain numbers, for the thread that answers.

    They become metrics when those are looked at: to count and to observe each answer there took 2 µs of it.
    """

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._seconds = REQUEST_SECONDS.labels(operation)
        self._by_status: dict[int, int] = {}
        self._in_buckets = [0] * (len(SECONDS_BOUNDS) + 1)
        self._total_s = 0.0

    def count(self, status: int) -> None:
        """Count an answer whose time says nothing."""
        self._by_status[status] = self._by_status.get(status, 0) + 1

    def observe(self, status: int, seconds: float) -> None:
        """Count an answer and the time that it took."""
        self._by_status[status] = self._by_status.get(status, 0) + 1
        self._in_buckets[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self._total_s += seconds

    def publish(self) -> None:
        """Hand over what was counted since the last time."""
        by_status, self._by_status = self._by_status, {}
        for status, count in by_status.items():
            REQUESTS.labels(self._operation, str(status)).inc(count)
        if any(self._in_buckets):
            self._seconds.add(self._in_buckets, self._total_s)
            self._in_buckets, self._total_s = [0] * len(self._in_buckets), 0.0


_answered: dict[str, Answered] = {}


def answered(operation: str) -> Answered:
    """What counts the answers of an operation in this process."""
    found = _answered.get(operation)
    if found is None:
        found = _answered[operation] = Answered(operation)
    return found


def _publish() -> None:
    for counted in _answered.values():
        counted.publish()


def configure_logging(level: str, form: Literal["json", "console"]) -> None:
    """Set up the process's logs; the standard library's loggers come out the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # How it works is not what happens to our users.
    logging.getLogger("alembic").setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class _Silent(WSGIRequestHandler):
    """Health checks come every few seconds: no line for each."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base's
        return


def serve_metrics(host: str, port: int, alive: Callable[[], bool] = lambda: True) -> WSGIServer:
    """Serve `/metrics` and `/health/live` from a thread of their own, for a process that answers nothing else.

    The health is 200 while `alive` says so, else 503. `shutdown()` and `server_close()` of what is returned end it;
    else it ends with the process. Port 0 takes a free one (`server_port`).

    Raises:
        ConfigurationError: the port can't be listened on.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path, status, kind, body = environ["PATH_INFO"], "200 OK", "application/json", b'{"status":"ok"}'
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b'{"status":"method not allowed"}'
        elif path == "/metrics":
            kind, body = CONTENT_TYPE_LATEST, generate_latest(REGISTRY)
        elif path != "/health/live":
            status, body = "404 Not Found", b'{"status":"not found"}'
        elif not alive():
            status, body = "503 Service Unavailable", b'{"status":"stuck"}'
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    try:
        server = make_server(host, port, answer, ThreadingWSGIServer, handler_class=_Silent)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"Can't serve metrics on {host}:{port}: {error}.") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
