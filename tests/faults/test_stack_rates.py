"""Redis is away, and with it the buckets of the rate limits: what has to ask it is 503, nothing is 429 or 500."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.problems import expect_not_found, expect_problem
from tests.client import expect
from tests.conftest import Connect, only
from tests.faults.conftest import Expose
from tests.faults.exposed import Exposed
from tests.faults.unavailable import assert_unavailable

ADMIN_KEY = "an-admin-key-of-the-tests"
RIGHT, WRONG = {"Authorization": f"Bearer {ADMIN_KEY}"}, {"Authorization": "Bearer a-guess"}
BURST = 10
MANY = 3 * BURST

pytestmark = only("stack", because="only the stack house has a Redis")


@pytest.fixture
def exposed(expose: Expose) -> Exposed:
    """A house with low limits and an admin key."""
    return expose(rate_per_s=1, rate_burst=BURST, unknown_rate_per_s=1, admin_key=ADMIN_KEY)


async def test_without_redis_no_rate_refuses_and_with_it_they_do_again(exposed: Exposed, connect: Connect) -> None:
    """Chats are 503, guesses what they were before, the admin key works; Redis back, each limit holds once more."""
    await exposed.start()
    client = connect(exposed.house)
    application = expect(await client.post("/applications", json={"name": "x"}, headers=RIGHT), 201).json()
    chat = await client.create_chat(application["token"])
    nobodys = f"/applications/{'A' * 43}"
    exposed.redis.kill()
    for _ in range(MANY):
        assert_unavailable(await chat.request("GET"))
        assert_unavailable(await chat.request("POST", "/messages", json={"body": "x"}))
        expect_not_found(await client.get(nobodys))
        expect_problem(await client.get("/applications", headers=WRONG), 401, "unauthorized")
        expect(await client.get("/applications", headers=RIGHT), 200)
    await asyncio.to_thread(exposed.redis.start)
    await exposed.until_ready()
    own = f"/applications/{application['token']}"
    for path, headers, passes in ((own, {}, 200), (nobodys, {}, 404), ("/applications", WRONG, 401)):
        statuses = {(await client.get(path, headers=headers)).status_code for _ in range(MANY)}
        assert statuses - {passes} == {429}
