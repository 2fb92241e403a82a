"""A container's health check: `python -m chat_system.web.probe`."""

from __future__ import annotations

import subprocess
import sys

from tests.houses import House
from tests.servers.process import free_port

PROBE_TIMEOUT_S = 30


def probe(url: str) -> subprocess.CompletedProcess[str]:
    """Ask once, as a container would."""
    command = [sys.executable, "-m", "chat_system.web.probe", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)


def test_a_server_that_is_ready_passes_the_health_check(house: House) -> None:
    """The exit code is 0, and the answer is shown."""
    asked = probe(f"{house.url}/health/ready")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert '"ready"' in asked.stdout


def test_any_other_answer_fails_the_health_check(house: House) -> None:
    """The exit code is 1, and the answer tells why."""
    asked = probe(f"{house.url}/nothing")
    assert (asked.returncode, asked.stderr) == (1, "")
    assert '"not_found"' in asked.stdout


def test_no_answer_fails_the_health_check() -> None:
    """The exit code is 1, without a traceback."""
    asked = probe(f"http://127.0.0.1:{free_port()}/health/live")
    assert (asked.returncode, asked.stderr) == (1, "")
    assert "ConnectionRefusedError" in asked.stdout
