"""A traceback in a log is found in either form of the log, and what only looks like trouble is not taken for one."""

from __future__ import annotations

from tests.faults.logs import tracebacks

CONSOLE = """2026-01-01T00:00:00Z [info     ] serving
2026-01-01T00:00:01Z [error    ] request failed                 request_id=one
Traceback (most recent call last):
  File "app.py", line 1, in answer
RuntimeError: planted
2026-01-01T00:00:02Z [info     ] stopped
"""
JSON = '{"event": "serving"}\n{"event": "failed", "exception": "Traceback (most recent call last):\\n  File ..."}\n'


def test_a_traceback_is_found_with_the_line_that_it_explains() -> None:
    """On lines of its own, and within a line of JSON."""
    (found,) = tracebacks(CONSOLE)
    assert "request failed" in found
    assert "RuntimeError: planted" in found
    (found,) = tracebacks(JSON)
    assert '"event": "failed"' in found


def test_each_traceback_is_found() -> None:
    """However many there are, and however close together."""
    assert len(tracebacks(CONSOLE * 3 + JSON)) == 4


def test_warnings_and_errors_are_no_tracebacks() -> None:
    """A server that is away is told of in a line."""
    assert tracebacks("2026-01-01T00:00:00Z [error    ] redis is away    detail=Connection refused\n") == []
