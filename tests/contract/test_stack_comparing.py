"""What `chat-system check` finds between MySQL and Elasticsearch, where both hold as many messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chat_system.model import ApplicationId
from chat_system.stack import documents
from chat_system.stack.bulk import REVISION_BITS
from chat_system.stack.comparing import compare_index
from chat_system.stack.search import StackSearch
from tests.contract.houses import OPENERS, OpenHouse

pytestmark = pytest.mark.skipif("stack" not in OPENERS, reason="only the stack house has an index of its own")

LATER = 9 << REVISION_BITS
"""The version of a document that wins over any of ours: that of another epoch."""


@pytest.fixture
async def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenHouse]:
    """The stack house without a worker; pages are small, so that there are several."""
    monkeypatch.setattr(documents, "PAUSE_S", 0.0)
    for name in ("store", "search"):
        monkeypatch.setattr(f"chat_system.stack.{name}.REVISIONS_AT_ONCE", 3)
    house = OpenHouse(OPENERS["stack"], tmp_path)
    await house.open()
    yield house
    await house.close()


@pytest.fixture
async def place(stack: OpenHouse) -> tuple[ApplicationId, int]:
    """Two chats with messages of every kind, applied; the second is it."""
    application, other = await stack.new_chat()
    chat = await stack.open_chat(application)
    for one in (other, chat):
        await stack.post(application, one, *(f"message {number}" for number in range(1, 8)))
        await stack.edit(application, one, 2, "STRASSE, not Stra\u00dfe")
        await stack.delete(application, one, 3)
    await stack.settle()
    return application, chat


async def compare(stack: OpenHouse) -> Sequence[tuple[str, str]]:
    """Where the index is wrong, and how."""
    journal: Any = stack.journal
    store: Any = stack.store
    search: Any = stack.search
    return [(found.where, found.what) for found in await compare_index(journal, store, search)]


async def plant(stack: OpenHouse, place: tuple[ApplicationId, int], number: int, version: int, **changed: Any) -> None:
    """Put a document in the place of a message's, of any version, like that of message 1 but for what is changed."""
    search: Any = stack.search
    assert isinstance(search, StackSearch)
    application, chat = place
    found = await search.document(application, chat, 1)
    assert found is not None
    await search.elasticsearch.ask(
        "PUT",
        f"/{search.alias}/_doc/{application}:{chat}:{number}",
        {**found[1], "number": number, **changed},
        routing=application,
        version=version,
        version_type="external",
    )


async def test_what_was_applied_is_alike_on_both_sides(stack: OpenHouse, place: tuple[ApplicationId, int]) -> None:
    """Edited, deleted and whatever else; also after changes that are not applied yet."""
    assert await compare(stack) == []
    await stack.edit(*place, 4, "not applied")
    assert await compare(stack) == []


async def test_a_stale_document_is_found(stack: OpenHouse, place: tuple[ApplicationId, int]) -> None:
    """It tells an earlier revision than the row."""
    await plant(stack, place, 2, LATER + 2)
    application, chat = place
    assert await compare(stack) == [
        (
            f"application {application}, chat {chat}, message 2",
            "the search index has revision 2, MySQL 8",
        )
    ]


async def test_a_document_with_another_content_is_found(stack: OpenHouse, place: tuple[ApplicationId, int]) -> None:
    """Though its revision is that of the row."""
    await plant(stack, place, 5, LATER + 5, folded="something else")
    application, chat = place
    assert await compare(stack) == [
        (
            f"application {application}, chat {chat}, message 5",
            "the search index has another content than MySQL",
        )
    ]


async def test_documents_that_are_missing_and_too_many_are_found_though_as_many(
    stack: OpenHouse, place: tuple[ApplicationId, int]
) -> None:
    """The counts agree; which messages these are does not."""
    search: Any = stack.search
    application, chat = place
    await search.elasticsearch.ask("DELETE", f"/{search.alias}/_doc/{application}:{chat}:6", routing=application)
    await plant(stack, place, 99, LATER + 99)
    where = f"application {application}, chat {chat}, message"
    assert await compare(stack) == [
        (f"{where} 6", "MySQL has it, the search index does not"),
        (f"{where} 99", "the search index has it, MySQL does not"),
    ]
