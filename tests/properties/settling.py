"""Waiting for what may lag a moment (counts, search), from synchronous code.

The deadline is far above the promised 2 s: a property must not fail because the machine is busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 15.0
POLL_INTERVAL_S = 0.02


def eventually_equal(read: Callable[[], Any], wanted: Any) -> None:
    """Read again and again until the wanted value comes; fail with the last one after DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while (last := read()) != wanted:
        assert time.monotonic() < deadline, f"wanted {wanted!r}, last read {last!r}"
        time.sleep(POLL_INTERVAL_S)
