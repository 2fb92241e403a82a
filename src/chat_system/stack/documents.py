"""Comparing one by one what Elasticsearch holds of an application with what MySQL stores.

All numbers and revisions are walked through on both sides at once, in the same order and by pages, so memory stays
bounded. Of what is equal so far, the whole content is compared for a sample: that of a small application is all of it.

Not promised: that a document which is wrong in spite of its revision is found in a large application by one check.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from chat_system.model import ApplicationId
from chat_system.ports import Discrepancy
from chat_system.stack.bulk import expected
from chat_system.stack.search import StackSearch
from chat_system.stack.store import Held, StackStore

LOOKS = 5
PAUSE_S = 0.4
"""Between two looks at what differs. Elasticsearch shows what it was given within a second."""

SUSPECTS_MAX = 20
"""After so many differences of one application the rest is not looked for."""

SAMPLE = 20
"""Messages of an application whose whole content is compared."""

_Place = tuple[int, int]


async def compare_documents(
    store: StackStore, search: StackSearch, application: ApplicationId, backlog: Callable[[], Awaitable[int]]
) -> Sequence[Discrepancy]:
    """Messages that the index holds in another state than MySQL, or only one of the two holds.

    `backlog` says how many facts are not applied yet: so many differences are none.

    Raises:
        Unavailable: MySQL, Redis or Elasticsearch is away.
    """
    suspects, sample = await _walk(store.revisions(application), search.revisions(application))
    wrong = await _differing(store, search, application, {*suspects, *sample})
    for _ in range(LOOKS - 1):
        if not wrong:
            break
        await asyncio.sleep(PAUSE_S)
        wrong = await _differing(store, search, application, wrong)
    if len(wrong) <= await backlog():
        return []
    return [
        Discrepancy(f"application {application}, chat {chat}, message {number}", what)
        for (chat, number), what in sorted(wrong.items())
    ]


async def _walk(stored: AsyncIterator[Held], indexed: AsyncIterator[Held]) -> tuple[list[_Place], list[_Place]]:
    """Places where the two differ, and a sample of those where they do not."""
    suspects: list[_Place] = []
    sample: list[_Place] = []
    equal = 0
    row, document = await anext(stored, None), await anext(indexed, None)
    while (row or document) and len(suspects) < SUSPECTS_MAX:
        place = min(held[:2] for held in (row, document) if held is not None)
        if row == document:
            equal += 1
            _keep_some(sample, place, equal)
        else:
            suspects.append(place)
        if row is not None and row[:2] == place:
            row = await anext(stored, None)
        if document is not None and document[:2] == place:
            document = await anext(indexed, None)
    return suspects, sample


def _keep_some(sample: list[_Place], place: _Place, seen: int) -> None:
    """Keep each of all that were seen with the same chance."""
    if len(sample) < SAMPLE:
        sample.append(place)
    elif (index := random.randrange(seen)) < SAMPLE:  # noqa: S311 - nobody gains by guessing it
        sample[index] = place


async def _differing(
    store: StackStore, search: StackSearch, application: ApplicationId, places: Iterable[_Place]
) -> dict[_Place, str]:
    """Of these places, those that differ now, and how."""
    asked = list(places)
    found = await asyncio.gather(*(_difference(store, search, application, *place) for place in asked))
    return {place: what for place, what in zip(asked, found, strict=True) if what is not None}


async def _difference(
    store: StackStore, search: StackSearch, application: ApplicationId, chat: int, number: int
) -> str | None:
    indexed = await search.document(application, chat, number)
    stored = await store.stored_message(application, chat, number)
    if stored is None:
        return None if indexed is None else "the search index has it, MySQL does not"
    if indexed is None:
        return "MySQL has it, the search index does not"
    revision, source = indexed
    if revision != stored.revision:
        return f"the search index has revision {revision}, MySQL {stored.revision}"
    if source != expected(application, chat, stored):
        return "the search index has another content than MySQL"
    return None
