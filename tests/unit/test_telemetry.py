"""Metrics of several processes as one, and a worker's own little server of metrics and health."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY as LIBRARY_REGISTRY
from prometheus_client import generate_latest

from chat_system import telemetry
from chat_system.errors import ConfigurationError
from tests.servers.process import free_port

PROCESS_TIMEOUT_S = 30
WORK = """
import sys
from prometheus_client import generate_latest
from chat_system import telemetry
accepted, in_flight, backlog = map(int, sys.argv[1:])
telemetry.ACCEPTED.inc(accepted)
telemetry.REQUESTS.labels("createMessage", "201").inc(accepted)
telemetry.FLUSH_UNITS.observe(accepted)
telemetry.LIVE_READERS.inc(in_flight)
telemetry.IN_FLIGHT.set_function(lambda: in_flight)
if backlog:
    telemetry.BACKLOG.labels("store").set(backlog)
sys.stdout.buffer.write(generate_latest(telemetry.REGISTRY))
"""


def scrape(folder: Path, place: int, accepted: int, in_flight: int = 0, backlog: int = 0) -> dict[str, float]:
    """What a process in this place shows after it has counted; it ends without tidying up."""
    environment = os.environ | {telemetry.SHARED_FOLDER: str(folder), telemetry.PLACE: str(place)}
    command = [sys.executable, "-c", WORK, str(accepted), str(in_flight), str(backlog)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=PROCESS_TIMEOUT_S, check=True)
    return samples(done.stdout.decode())


def samples(text: str) -> dict[str, float]:
    """Series and values."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_each_process_shows_the_sum_of_all(tmp_path: Path) -> None:
    """Counters, histograms and what is open in each are added up; the metrics of one process are not."""
    scrape(tmp_path, 0, accepted=3, in_flight=1)
    scrape(tmp_path, 1, accepted=4, in_flight=2)
    shown = scrape(tmp_path, 2, accepted=5, in_flight=4)
    assert shown["chat_messages_accepted_total"] == 12
    assert shown['chat_requests_total{operation="createMessage",status="201"}'] == 12
    assert shown["chat_flush_writes_count"] == 3
    assert shown["chat_flush_writes_sum"] == 12
    assert shown['chat_flush_writes_bucket{le="4.0"}'] == 2
    assert shown["chat_requests_in_flight"] == 7
    assert shown["chat_live_readers"] == 7
    assert samples(generate_latest(telemetry.REGISTRY).decode()).get("chat_live_readers") == 0


def test_what_is_measured_for_all_is_shown_as_it_was_measured_last(tmp_path: Path) -> None:
    """The backlog is one, whoever measured it: it is neither added up nor told from each other's past."""
    scrape(tmp_path, 0, accepted=1, backlog=100)
    assert scrape(tmp_path, 1, accepted=1, backlog=7)['chat_backlog_entries{projection="store"}'] == 7
    assert scrape(tmp_path, 2, accepted=1)['chat_backlog_entries{projection="store"}'] == 7


def test_who_follows_a_process_that_died_goes_on_with_its_counters_only(tmp_path: Path) -> None:
    """Totals never fall, what the dead had open is gone, and no death leaves a file more behind."""
    scrape(tmp_path, 0, accepted=3, in_flight=1)
    scrape(tmp_path, 1, accepted=4, in_flight=2)
    files = {path.name for path in tmp_path.iterdir()}
    telemetry.forget_gauges("1", str(tmp_path))
    shown = scrape(tmp_path, 1, accepted=10, in_flight=4)
    assert shown["chat_messages_accepted_total"] == 17
    assert shown["chat_live_readers"] == 5
    assert {path.name for path in tmp_path.iterdir()} == files


def test_one_process_needs_no_folder_and_reads_gauges_when_it_is_asked() -> None:
    """Without other processes a gauge shows what its function says at that moment."""
    state = [1.0]
    telemetry.IN_FLIGHT.set_function(lambda: state[0])
    state[0] = 5.0
    assert samples(generate_latest(telemetry.REGISTRY).decode())["chat_requests_in_flight"] == 5


def test_no_metric_of_ours_is_registered_with_the_library() -> None:
    """/metrics shows ours alone, and all of ours."""
    assert "chat_" not in generate_latest(LIBRARY_REGISTRY).decode()


# The little server


@contextmanager
def served(alive: Callable[[], bool] = lambda: True) -> Iterator[httpx.Client]:
    """A client of a server of metrics, which is ended afterwards."""
    server = telemetry.serve_metrics("127.0.0.1", 0, alive)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
            yield client
    finally:
        server.shutdown()
        server.server_close()


def test_a_worker_serves_its_metrics() -> None:
    """In Prometheus' text format, like the API's own."""
    with served() as client:
        response = client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert "chat_facts_applied_total" in samples(response.text)
        assert client.head("/metrics").content == b""


def test_a_worker_says_whether_it_is_alive() -> None:
    """200 while it works, 503 once it is stuck: a container's health check tells the two apart."""
    working = True
    with served(lambda: working) as client:
        assert client.get("/health/live").status_code == 200
        working = False
        assert client.get("/health/live").status_code == 503


def test_a_worker_serves_nothing_else() -> None:
    """Any other path is 404, any other method 405."""
    with served() as client:
        for path in ("/", "/applications", "/health/ready", "/metrics/"):
            assert client.get(path).status_code == 404
        assert client.post("/metrics").status_code == 405


def test_a_port_for_metrics_that_is_taken_is_an_error_of_configuration() -> None:
    """One clear line names the address."""
    port = free_port()
    server = telemetry.serve_metrics("127.0.0.1", port)
    try:
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            telemetry.serve_metrics("127.0.0.1", port)
    finally:
        server.shutdown()
        server.server_close()
