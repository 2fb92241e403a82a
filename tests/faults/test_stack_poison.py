"""Facts that can't be applied: set aside and shown, the others pass, and retried when the cause is mended."""

from __future__ import annotations

import re
from typing import Any

import httpx

from chat_system.stack import facts
from tests.client import ChatAt
from tests.conftest import Connect, only
from tests.faults.conftest import Expose
from tests.faults.exposed import Exposed, until

POISON = "poison"
REFUSE = f"""
    CREATE TRIGGER refuse_poison BEFORE INSERT ON messages FOR EACH ROW
    BEGIN
        IF NEW.body = '{POISON}' THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'this body is not to be had';
        END IF;
    END"""
REJECT: dict[str, Any] = {
    "processors": [{"convert": {"field": "folded", "type": "integer", "if": f"ctx.folded == '{POISON}'"}}]
}

pytestmark = only("stack", because="only there does applying come after accepting")


async def a_chat(exposed: Exposed, connect: Connect) -> ChatAt:
    """A chat with one message, applied everywhere."""
    await exposed.start()
    client = connect(exposed.house)
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("before")
    await exposed.until_applied()
    return chat


async def until_set_aside(exposed: Exposed, projection: str) -> None:
    """Wait for the first fact that is set aside."""

    async def found() -> bool:
        return exposed.set_aside(projection) > 0

    await until(found, f"something is set aside for {projection}")


async def journal(exposed: Exposed, *words: str) -> str:
    """What `chat-system journal` tells the operator."""
    told = await exposed.command("journal", *words)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout + told.stderr


async def test_what_mysql_refuses_is_set_aside_and_applied_when_it_is_retried(expose: Expose, connect: Connect) -> None:
    """A trigger refuses one body; its neighbours are stored, readers miss nothing, and later it is stored, too."""
    exposed = expose()
    chat = await a_chat(exposed, connect)
    await exposed.sql(REFUSE)
    await chat.post_batch("second", POISON, "fourth")
    await chat.post("fifth")
    await until_set_aside(exposed, "store")
    await exposed.until_applied()
    assert await exposed.stored_messages() == 4
    # It was acknowledged to the one who posted it: the tail keeps it for readers.
    assert [message["body"] for message in await chat.messages()] == ["before", "second", POISON, "fourth", "fifth"]
    assert (await chat.read())["messages_count"] == 5
    shown = await journal(exposed)
    assert "chat 1, message 3" in shown
    assert "this body is not to be had" in shown
    assert exposed.set_aside("store") == 1
    await chat.edit(5, body="fifth, edited")
    await exposed.sql("DROP TRIGGER refuse_poison")
    assert "1 facts go back" in await journal(exposed, "--retry", "store")
    await exposed.until_applied()
    assert exposed.set_aside("store") == 0
    assert await exposed.stored_messages() == 5
    await exposed.whole()
    assert [message["body"] for message in await chat.messages()][2:] == [POISON, "fourth", "fifth, edited"]


async def test_what_elasticsearch_rejects_is_set_aside_and_found_when_it_is_retried(
    expose: Expose, connect: Connect
) -> None:
    """A pipeline rejects one text; its neighbours are found, MySQL has all, and later it is found, too."""
    exposed = expose()
    chat = await a_chat(exposed, connect)
    search = exposed.direct.addresses.elasticsearch_url
    pipeline = f"{exposed.direct.name}-reject"
    async with httpx.AsyncClient(base_url=search, timeout=30.0, trust_env=False) as http:
        (await http.put(f"/_ingest/pipeline/{pipeline}", json=REJECT)).raise_for_status()
        index = f"/{exposed.direct.name}/_settings"
        (await http.put(index, json={"index.final_pipeline": pipeline})).raise_for_status()
        await chat.post_batch("second", POISON, "fourth")
        await until_set_aside(exposed, "search")
        await exposed.until_applied()
        assert exposed.set_aside("store") == 0
        assert await exposed.stored_messages() == 4
        assert "chat 1, message 3" in await journal(exposed)
        assert await exposed.indexed_messages() == 3
        (await http.put(index, json={"index.final_pipeline": "_none"})).raise_for_status()
        (await http.delete(f"/_ingest/pipeline/{pipeline}")).raise_for_status()
    assert "1 facts go back" in await journal(exposed, "--retry", "search")
    await exposed.whole()
    assert exposed.set_aside("search") == 0
    assert [message["number"] for message in await chat.search(POISON)] == [3]


async def test_what_can_never_be_stored_is_discarded_when_its_message_was_deleted(
    expose: Expose, connect: Connect
) -> None:
    """As long as readers see it nothing of it is discarded; then the tombstone is what is stored, without a gap."""
    exposed = expose()
    chat = await a_chat(exposed, connect)
    await exposed.sql(REFUSE)
    await chat.post_batch("second", POISON, "fourth")
    await until_set_aside(exposed, "store")
    position = next(re.finditer(r"\d+/\d+-\d+/\d+", await journal(exposed))).group()
    refused = await exposed.command("journal", "--discard", position)
    assert (refused.returncode, exposed.set_aside("store")) == (1, 1)
    assert "readers still see it" in refused.stderr
    assert [message["body"] for message in await chat.messages()] == ["before", "second", POISON, "fourth"]
    await chat.delete(3)
    await exposed.until_applied()
    told = await journal(exposed, "--discard", position)
    assert "Discarded for store: application 1, chat 1, message 3" in told
    assert "this body is not to be had" in told
    assert exposed.set_aside("store") == 0
    await exposed.whole()
    assert [message["body"] for message in await chat.messages()] == ["before", "second", None, "fourth"]
    again = await exposed.command("journal", "--discard", position)
    assert (again.returncode, "Nothing was set aside" in again.stderr) == (1, True)


async def test_an_entry_that_nobody_can_read_is_set_aside_and_the_others_pass(expose: Expose, connect: Connect) -> None:
    """Garbage in a stream stops neither projection, and is shown as what it is."""
    exposed = expose(partitions=1)
    chat = await a_chat(exposed, connect)
    with exposed.asking_redis() as client:
        meta, stream = exposed.key(0, "meta"), exposed.key(0, "stream")
        epoch = client.hget(meta, "epoch").decode()
        head = [facts.POST, 1, 1, 9, 9, 1]
        no_text = facts.encode([[head, [[None, "no text", None, None]]]]).replace(b"no text", b"\xff" * 7)
        for garbage in (
            {"t": 1, "m": b"\xc1 garbage"},
            {"t": 1, "m": no_text},
            {"t": 1, "?": b""},
            {"nothing": "known"},
        ):
            client.xadd(stream, garbage, id=f"{epoch}-*")
    await chat.post_batch("second", "third")
    await until_set_aside(exposed, "store")
    await until_set_aside(exposed, "search")
    # The third is of no kind that the search index takes in, and in the fourth there is nothing for either.
    await exposed.whole(set_aside=(3, 2))
    shown = await journal(exposed)
    assert "unreadable" in shown
    assert [message["body"] for message in await chat.messages()] == ["before", "second", "third"]
    assert [message["number"] for message in await chat.search("third")] == [3]
