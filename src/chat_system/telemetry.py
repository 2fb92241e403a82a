"""Logs and metrics: what an operator sees.

Logs are structured (one JSON object a line, or columns for people) and go to standard error. Tokens and keys never
appear in one, nor in a metric's label: paths are named by their template.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# A second series for each counter that says only when it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

REQUESTS = Counter("chat_requests", "Answers sent.", ["operation", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "chat_request_seconds",
    "From a request's first byte read to its answer handed to the server, streams apart.",
    ["operation"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    registry=REGISTRY,
)
IN_FLIGHT = Gauge("chat_requests_in_flight", "Requests being answered, streams apart.", registry=REGISTRY)
ACCEPTED = Counter("chat_messages_accepted", "Messages that were given a number.", registry=REGISTRY)
INDEXED = Counter("chat_messages_indexed", "Messages brought into the search index.", registry=REGISTRY)
BACKLOG = Gauge("chat_backlog_entries", "Recorded facts not applied yet.", ["projection"], registry=REGISTRY)
LAG = Gauge("chat_lag_seconds", "Age of the oldest fact not applied yet.", ["projection"], registry=REGISTRY)
SET_ASIDE = Gauge(
    "chat_set_aside_entries",
    "Facts that could not be applied and wait for an operator.",
    ["projection"],
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
LIVE_READERS = Gauge("chat_live_readers", "Open event streams.", registry=REGISTRY)
LIVE_CUT = Counter(
    "chat_live_readers_cut", "Event streams cut off because their reader was too slow.", registry=REGISTRY
)


def configure_logging(level: str, form: Literal["json", "console"]) -> None:
    """Set up the process's logs; the standard library's loggers, uvicorn's among them, come out the same way."""
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
    # How they work is not what happens to our users; and every malformed request that uvicorn warns of has its answer.
    for chatty, least in (("alembic", logging.WARNING), ("uvicorn.error", logging.ERROR)):
        logging.getLogger(chatty).setLevel(max(least, root.level))
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
