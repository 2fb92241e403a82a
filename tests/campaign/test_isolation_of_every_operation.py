"""Promise 8, for every operation of the document: what is not yours is the same 404. And no log tells a token."""

from __future__ import annotations

import asyncio
from functools import partial

import httpx
import pytest

from campaign.isolation import UNKNOWN, People, cases, faults
from tests.conftest import BuildHouse
from tests.eventually import eventually
from tests.houses import House

ADMIN_KEY = "a-key-of-the-operator-that-nobody-may-see"
KEY = "an-idempotency-key-that-nobody-may-see"
OPEN = {"rate_per_s": 100_000, "rate_burst": 100_000, "unknown_rate_per_s": 100_000}


@pytest.fixture
def own(serve: BuildHouse) -> House:
    """A house that refuses nobody for coming too often."""
    return serve(**OPEN, log_level="debug")


def test_every_operation_answers_the_same_404_to_whoever_does_not_own_it(own: House) -> None:
    """Foreign, erased, unknown and mangled tokens; numbers of others, of nobody, and what is no number."""
    with httpx.Client(base_url=own.url, timeout=30, trust_env=False) as http:
        document = http.get("/openapi.json").json()
        count, wrong = faults(http, document, People.move_in(http))
    assert wrong == []
    named = {case.operation for case in cases(document, People("o", "t", "e"))}
    with_parameters = {
        about["operationId"] for path, methods in document["paths"].items() for about in methods.values() if "{" in path
    }
    assert named == with_parameters
    assert count > 10 * len(named)


def test_a_foreign_token_cannot_be_told_from_none_by_what_it_changes(own: House) -> None:
    """After every foreign request, the others' chats and messages are as they were."""
    with httpx.Client(base_url=own.url, timeout=30, trust_env=False) as http:
        people = People.move_in(http)

        def shown() -> list[str]:
            paths = ("", "/chats", "/chats/1/messages", "/chats/3/messages")
            return [http.get(f"/applications/{people.theirs}{path}").text for path in paths]

        def counts() -> tuple[int, list[tuple[int, int]]]:
            chats = http.get(f"/applications/{people.theirs}/chats").json()
            count = http.get(f"/applications/{people.theirs}").json()["chats_count"]
            return count, [(chat["messages_count"], chat["revision"]) for chat in chats]

        # They may lag a moment, and would be seen to change.
        asyncio.run(eventually(partial(asyncio.to_thread, counts), (3, [(3, 3)] * 3)))
        before = shown()
        faults(http, http.get("/openapi.json").json(), people)
        assert shown() == before


def test_no_token_or_key_is_ever_written_down(serve: BuildHouse) -> None:
    """Neither in a log line, though everything is logged, nor in a metric: not ours, not unknown ones, not keys."""
    house = serve(**OPEN, log_level="debug", admin_key=ADMIN_KEY)
    with httpx.Client(base_url=house.url, timeout=30, trust_env=False) as http:
        http.headers["Authorization"] = f"Bearer {ADMIN_KEY}"
        document = http.get("/openapi.json").json()
        people = People.move_in(http)
        path = f"/applications/{people.ours}/chats/1/messages"
        for body in ({"body": "x"}, {"body": "y"}, {"body": ""}):
            http.post(path, json=body, headers={"Idempotency-Key": KEY})
        http.get("/applications", headers={"Authorization": "Bearer not-the-admin-key-at-all"})
        http.get(f"/chats/1/messages/search?q=x&token={people.theirs}", headers={"Authorization": ""})
        faults(http, document, people)
        metrics = http.get("/metrics").text
    assert house.stop() == 0
    told = house.log_text()
    secrets = (people.ours, people.theirs, people.erased, UNKNOWN, ADMIN_KEY, KEY, "not-the-admin-key-at-all")
    assert {secret for secret in secrets if secret in told or secret in metrics} == set()
    assert told
