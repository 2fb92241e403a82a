"""A journal of Redis that was torn in the middle of a transaction: what is recorded afterwards stays.

Left alone, Redis (7.0, and its kin) cuts such a file behind the last whole command, inside the transaction. It goes
on, and can load the file again. But when the file is torn another time, in a way that Redis refuses, redis-check-aof
cuts it where the first transaction was left open, and all that was acknowledged in between is lost. So the file is
mended before every start, when there is no more than one torn end: docs/operating.md.
"""

from __future__ import annotations

from tests.conftest import Connect, only
from tests.faults.conftest import Expose
from tests.faults.exposed import Exposed
from tests.servers.redis import RedisServer

SECTOR_BYTES = 512

pytestmark = only("stack", because="only the stack house has a Redis")


def tear(redis: RedisServer, *, within: bytes) -> None:
    """Cut the file of a Redis that was killed in the middle of the last transaction with these bytes."""
    [path] = redis.data.rglob("*.incr.aof")
    content = path.read_bytes()
    begins = content.rindex(b"$5\r\nMULTI\r\n", 0, content.rindex(within))
    assert b"$4\r\nEXEC\r\n" not in content[begins : content.rindex(within)]
    path.write_bytes(content[: content.rindex(within) + len(within) // 2])


async def a_torn_journal(exposed: Exposed, connect: Connect) -> str:
    """A house whose Redis was killed while it wrote a message that was not acknowledged; the path of its chat."""
    await exposed.start()
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("acknowledged")
    await exposed.until_applied()
    exposed.house.kill_worker()
    await chat.post("not acknowledged: its writing was torn")
    exposed.redis.kill()
    tear(exposed.redis, within=b"not acknowledged")
    return chat.path


def lose_a_sector(redis: RedisServer, *, within: bytes) -> None:
    """Let one sector of a Redis that was killed be zeros, which lies wholly within the last of these bytes."""
    [path] = redis.data.rglob("*.incr.aof")
    begins = path.read_bytes().rindex(within)
    sector = -(-begins // SECTOR_BYTES) * SECTOR_BYTES
    assert sector + SECTOR_BYTES <= begins + len(within)
    with path.open("r+b") as file:
        file.seek(sector)
        file.write(bytes(SECTOR_BYTES))


def zero(redis: RedisServer) -> None:
    """Let the file of a Redis that was killed end in a sector of zeros, as after a loss of power."""
    [path] = redis.data.rglob("*.incr.aof")
    with path.open("ab") as file:
        file.write(bytes(SECTOR_BYTES))


async def test_what_is_acknowledged_between_two_torn_writes_is_not_lost(expose: Expose, connect: Connect) -> None:
    """Torn, started, posted to, torn again, started: what was acknowledged in between is there, with its number."""
    exposed = expose()
    path = await a_torn_journal(exposed, connect)
    exposed.redis.start()
    await exposed.until_ready()
    client = connect(exposed.house)
    posted = [(await client.post(f"{path}/messages", json={"body": f"after {turn}"})).json() for turn in range(3)]
    exposed.redis.kill()
    zero(exposed.redis)
    exposed.redis.start()
    await exposed.until_ready()
    kept = await client.get_json(f"{path}/messages")
    assert [(one["number"], one["body"]) for one in kept] == [
        (1, "acknowledged"),
        *((one["number"], one["body"]) for one in posted),
    ]
    exposed.house.start_worker()
    await exposed.whole()


async def test_a_write_that_lacks_a_sector_within_a_text_is_cut_off_whole(expose: Expose, connect: Connect) -> None:
    """Redis finds nothing wrong with such a file. What was acknowledged before is there, and its numbers go on."""
    exposed = expose()
    await exposed.start()
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("acknowledged")
    await exposed.until_applied()
    exposed.house.kill_worker()
    torn = "not acknowledged " * 200
    await chat.post(torn)
    exposed.redis.kill()
    lose_a_sector(exposed.redis, within=torn.encode())
    exposed.redis.start()
    await exposed.until_ready()
    client = connect(exposed.house)
    posted = (await client.post(f"{chat.path}/messages", json={"body": "after"})).json()
    kept = await client.get_json(f"{chat.path}/messages")
    assert [(one["number"], one["body"]) for one in kept] == [(1, "acknowledged"), (2, "after")]
    assert posted["number"] == 2
    exposed.house.start_worker()
    await exposed.whole()
