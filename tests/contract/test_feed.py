"""Feed: who listens to a chat is woken when it changed, after the change can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from chat_system.model import ApplicationId
from tests.contract.houses import OpenHouse

PATIENCE_S = 10.0
QUIET_S = 0.3


class Sleeper:
    """Listens, and counts how often it was woken."""

    def __init__(self) -> None:
        self.times = 0
        self._woken = asyncio.Event()

    def __call__(self) -> None:
        """Be woken."""
        self.times += 1
        self._woken.set()

    async def woken(self) -> None:
        """Return once it was woken since the last time."""
        await asyncio.wait_for(self._woken.wait(), PATIENCE_S)
        self._woken.clear()


async def test_an_announcement_wakes_who_listens_to_the_chat(ports: OpenHouse, application: ApplicationId) -> None:
    """All of its listeners, at each announcement; nobody else."""
    first, second, stranger = Sleeper(), Sleeper(), Sleeper()
    other = await ports.new_application()
    feed = ports.feed
    with (
        feed.listen(application, 1, first),
        feed.listen(application, 1, second),
        feed.listen(application, 2, stranger),
        feed.listen(other, 1, stranger),
    ):
        for _ in range(3):
            feed.announce(application, 1)
            await asyncio.gather(first.woken(), second.woken())
    assert stranger.times == 0


async def test_who_has_stopped_listening_is_not_woken(ports: OpenHouse, application: ApplicationId) -> None:
    """Each context ends for its own listener only, in any order."""
    first, second = Sleeper(), Sleeper()
    one, other = ports.feed.listen(application, 1, first), ports.feed.listen(application, 1, second)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    ports.feed.announce(application, 1)
    await second.woken()
    other.__exit__(None, None, None)
    ports.feed.announce(application, 1)
    with ports.feed.listen(application, 1, witness := Sleeper()):
        ports.feed.announce(application, 1)
        await witness.woken()
    assert (first.times, second.times) == (0, 1)


async def test_a_listener_may_come_or_go_while_it_is_woken(ports: OpenHouse, application: ApplicationId) -> None:
    """A listener that ends its own listening, or begins another, disturbs no one."""
    last = Sleeper()
    listening: list[AbstractContextManager[None]] = []

    def leave() -> None:
        listening.pop(0).__exit__(None, None, None)
        listening.append(ports.feed.listen(application, 1, Sleeper()))
        listening[-1].__enter__()

    for wake in (leave, leave, last):
        listening.append(ports.feed.listen(application, 1, wake))
        listening[-1].__enter__()
    ports.feed.announce(application, 1)
    await last.woken()
    for one in listening:
        one.__exit__(None, None, None)


async def test_an_announcement_that_no_one_listens_to_is_no_error(ports: OpenHouse, application: ApplicationId) -> None:
    """It is a hint: nothing happens."""
    ports.feed.announce(application, 1)
    ports.feed.announce_erased(application)


async def test_an_erased_application_wakes_the_listeners_of_all_its_chats(
    ports: OpenHouse, application: ApplicationId
) -> None:
    """And of no other application."""
    sleepers = [Sleeper() for _ in range(3)]
    stranger = Sleeper()
    other = await ports.new_application()
    feed = ports.feed
    with (
        feed.listen(application, 1, sleepers[0]),
        feed.listen(application, 1, sleepers[1]),
        feed.listen(application, 5, sleepers[2]),
        feed.listen(other, 1, stranger),
    ):
        feed.announce_erased(application)
        await asyncio.gather(*(sleeper.woken() for sleeper in sleepers))
    assert stranger.times == 0


async def test_every_change_of_a_message_wakes(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Posts, batches, edits and deletions; and whoever is woken finds what it was woken for."""
    sleeper = Sleeper()
    changes: list[Callable[[], object]] = [
        lambda: ports.post(application, chat, "one"),
        lambda: ports.post(application, chat, "two", "three"),
        lambda: ports.edit(application, chat, 1, "ONE"),
        lambda: ports.delete(application, chat, 2),
    ]
    with ports.feed.listen(application, chat, sleeper):
        for wanted, change in zip((1, 3, 4, 5), changes, strict=True):
            running = asyncio.ensure_future(change())  # type: ignore[call-overload]
            await sleeper.woken()
            # A cluster may still be passing on what happened before: then it wakes once more.
            while await ports.store.revision(application, chat) < wanted:
                await sleeper.woken()
            # Woken as soon as it is durable, not only when the caller has its receipt.
            assert await ports.store.revision(application, chat) == wanted
            await running


async def test_the_erasure_of_an_application_wakes_its_listeners(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """The store announces it: they find that it is gone."""
    sleeper = Sleeper()
    with ports.feed.listen(application, chat, sleeper):
        await ports.store.erase_application(application)
        await sleeper.woken()


async def test_what_was_refused_wakes_no_one(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Neither a refusal nor a deletion of a tombstone is a change."""
    with ports.feed.listen(application, chat, before := Sleeper()):
        await ports.post(application, chat, "one")
        await ports.delete(application, chat, 1)
        # A cluster passes on in its own time what has happened: let it come to its end.
        heard = -1
        while heard != before.times:
            heard = before.times
            await asyncio.sleep(QUIET_S)
    sleeper = Sleeper()
    with ports.feed.listen(application, chat, sleeper):
        await asyncio.gather(
            ports.delete(application, chat, 99), ports.delete(application, chat, 1), return_exceptions=True
        )
        with ports.feed.listen(application, chat, witness := Sleeper()):
            ports.feed.announce(application, chat)
            await witness.woken()
            await sleeper.woken()
    assert sleeper.times == 1
