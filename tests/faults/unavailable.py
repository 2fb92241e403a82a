"""What a client is told while the database can't be written: 503, and when to come back."""

from __future__ import annotations

import time

import httpx

from tests.eventually import eventually
from tests.faults.history import CREATIONS
from tests.faults.load import Load


def assert_unavailable(answer: httpx.Response) -> None:
    """A 503 problem with its code, a Retry-After in whole seconds and a request id; nothing of the inside."""
    assert answer.status_code == 503, f"{answer.status_code}: {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (503, "unavailable")
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "sqlite" not in answer.text.lower()


async def refused(load: Load, times: int) -> None:
    """Wait until the load met that many 503s from now on."""
    since = len(load.history)

    async def enough() -> bool:
        return sum(one.status == 503 for one in load.history[since:]) >= times

    await eventually(enough, True)


async def accepted(load: Load, times: int = 1) -> None:
    """Wait until so many things were created that were asked for after this call."""
    since, now = len(load.history), time.monotonic()

    async def created() -> bool:
        later = (one for one in load.history[since:] if one.sent_at > now)
        return sum(one.acknowledged and one.ask in CREATIONS and not one.replayed for one in later) >= times

    await eventually(created, True)


def failures(load: Load) -> set[int | None]:
    """Every status of the log that is no answer or a 5xx."""
    return {one.status for one in load.history if one.status is None or one.status >= 500}
