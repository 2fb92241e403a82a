"""Promise 6: every change takes the chat's next revision, and changed_after reads on from any of them."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.links import link, link_query, pages
from tests.api.problems import expect_invalid
from tests.client import ChatAt, Message, expect


async def test_each_change_takes_the_next_revision(chat: ChatAt) -> None:
    """Posting, editing and deleting count in one sequence, and the message carries its last change."""
    assert (await chat.post())["revision"] == 1
    assert (await chat.post())["revision"] == 2
    assert (await chat.edit(1, body="edited"))["revision"] == 3
    assert [message["revision"] for message in await chat.post_batch("a", "b")] == [4, 5]
    await chat.delete(2)
    assert [message["revision"] for message in await chat.messages()] == [3, 6, 4, 5]
    assert (await chat.edit(1, metadata={"a": 1}))["revision"] == 7
    assert (await chat.edit(1, metadata=None))["revision"] == 8


async def test_a_change_that_changes_nothing_takes_no_revision(chat: ChatAt) -> None:
    """An empty edit, an edit to the same, a second deletion and every refusal leave no trace."""
    await chat.post("same", metadata={"a": 1})
    await chat.post("gone")
    await chat.delete(2)
    await chat.edit(1)
    await chat.edit(1, body="same")
    await chat.edit(1, metadata={"a": 1})
    await chat.delete(2)
    for number, fields in [(1, {"body": ""}), (2, {"body": "x"}), (9, {"body": "x"})]:
        assert (await chat.request("PATCH", f"/messages/{number}", json=fields)).status_code >= 400
    assert (await chat.post())["revision"] == 4


async def test_the_title_and_metadata_of_a_chat_take_no_revision(chat: ChatAt) -> None:
    """A chat's revision counts its messages' changes only."""
    await chat.post()
    expect(await chat.request("PATCH", json={"title": "New", "metadata": {"a": 1}}), 200)
    assert await chat.messages(changed_after=1) == []
    assert (await chat.post())["revision"] == 2


async def test_simultaneous_changes_take_distinct_revisions_without_gap(chat: ChatAt) -> None:
    """Posts, edits and deletions at the same time together take 1 to n."""
    await chat.post_batch(*(f"message {index}" for index in range(60)))
    edits = [chat.edit(number, body="edited") for number in range(1, 31)]
    deletions = [chat.delete(number) for number in range(31, 46)]
    posts = [chat.post() for _ in range(30)]
    await asyncio.gather(*edits, *deletions, *posts)
    revisions = [message["revision"] for message in await chat.messages(limit=200)]
    untouched = list(range(46, 61))
    assert sorted(revisions) == untouched + list(range(61, 61 + 75))


async def test_simultaneous_edits_of_one_message_are_all_applied(chat: ChatAt) -> None:
    """Each edit takes a revision of its own, and the message ends as its last one left it."""
    revision = 0
    for number in range(1, 6):
        await chat.post()
        answers = await asyncio.gather(*(chat.edit(number, body=f"edit {index}") for index in range(60)))
        revisions = range(revision + 2, revision + 62)
        assert sorted(answer["revision"] for answer in answers) == list(revisions)
        assert await chat.message(number) == max(answers, key=lambda answer: answer["revision"])
        revision = revisions[-1]


async def test_simultaneous_edits_of_body_and_metadata_lose_neither(chat: ChatAt) -> None:
    """A PATCH replaces the fields it names only, also against what it read before."""
    for number in range(1, 16):
        await chat.post("old", metadata={"state": "old"})
        await asyncio.gather(chat.edit(number, body="new"), chat.edit(number, metadata={"state": "new"}))
        message = await chat.message(number)
        assert (message["body"], message["metadata"]) == ("new", {"state": "new"})


async def test_a_message_deleted_while_it_is_edited_ends_as_a_tombstone(chat: ChatAt) -> None:
    """Each edit came before the deletion (200) or after it (409); the last revision is the deletion's."""
    for number in range(1, 11):
        await chat.post()
        requests = [chat.request("PATCH", f"/messages/{number}", json={"body": f"{n}"}) for n in range(4)]
        requests.insert(number % 5, chat.request("DELETE", f"/messages/{number}"))
        answers = await asyncio.gather(*requests)
        assert {answer.status_code for answer in answers} <= {200, 204, 409}
        revisions = [answer.json()["revision"] for answer in answers if answer.status_code == 200]
        tombstone = await chat.message(number)
        assert tombstone["deleted_at"] is not None
        assert tombstone["body"] is None
        assert all(revision < tombstone["revision"] for revision in revisions)


async def test_changed_after_returns_each_changed_message_once_in_its_latest_state(chat: ChatAt) -> None:
    """However often a message changed, it comes once, ordered by the revision of its last change."""
    await chat.post_batch("one", "two", "three", "four")
    for text in ("a", "b", "c"):
        await chat.edit(2, body=text)
    await chat.delete(1)
    assert [message["number"] for message in await chat.messages(changed_after=0)] == [3, 4, 2, 1]
    changed = await chat.messages(changed_after=4)
    assert [message["number"] for message in changed] == [2, 1]
    assert changed == [await chat.message(2), await chat.message(1)]
    assert [message["number"] for message in await chat.messages(changed_after=7)] == [1]
    assert await chat.messages(changed_after=8) == []
    assert await chat.messages(changed_after=10**9) == []


async def test_changed_after_pages_by_link(chat: ChatAt) -> None:
    """`next` leads through all changes in order, and the last page has none."""
    await chat.post_batch(*(f"message {index}" for index in range(12)))
    for number in (2, 5, 3):
        await chat.edit(number, body="edited")
    path = f"{chat.path}/messages"
    found = await pages(chat.client, path, changed_after=2, limit=4)
    assert [[message["revision"] for message in page] for page in found] == [
        [4, 6, 7, 8],
        [9, 10, 11, 12],
        [13, 14, 15],
    ]
    first = await chat.request("GET", "/messages", params={"changed_after": 2, "limit": 4})
    assert link_query(first, "next")["limit"] == "4"


async def test_changed_after_keeps_its_default_and_largest_page(chat: ChatAt) -> None:
    """`limit` means the same as in every list: 50 if absent, up to 200."""
    await chat.post_batch(*(f"message {index}" for index in range(210)))
    assert len(await chat.messages(changed_after=0)) == 50
    response = await chat.request("GET", "/messages", params={"changed_after": 0, "limit": 200})
    assert len(expect(response, 200).json()) == 200
    assert link(response, "next") is not None


@pytest.mark.parametrize("value", ["-1", "abc", "", "1.5", "1e3", " 1"])
async def test_an_ill_formed_changed_after_is_400(chat: ChatAt, value: str) -> None:
    """A revision is a whole number from 0 on."""
    expect_invalid(await chat.request("GET", "/messages", params={"changed_after": value}), "?changed_after")


@pytest.mark.parametrize(("other", "value"), [("after", "1"), ("before", "5"), ("order", "asc"), ("page", "1")])
async def test_changed_after_goes_with_limit_only(chat: ChatAt, other: str, value: str) -> None:
    """Together with another window it would mean two things at once: 400."""
    await chat.post()
    expect_invalid(await chat.request("GET", "/messages", params={"changed_after": "0", other: value}))


async def test_polling_by_revision_keeps_a_copy_equal_to_the_chat(chat: ChatAt) -> None:
    """A copy kept up to date by changed_after while others write equals a fresh snapshot."""
    copy: dict[int, Message] = {}
    cursor = 0
    writing = asyncio.gather(*(_write_for_a_while(chat, writer) for writer in range(4)))
    finished = False
    while not finished:
        finished = writing.done()
        while changed := await chat.messages(changed_after=cursor, limit=7):
            revisions = [message["revision"] for message in changed]
            assert revisions == sorted(revisions)
            assert revisions[0] > cursor
            copy |= {message["number"]: message for message in changed}
            cursor = revisions[-1]
    await writing
    assert [copy[number] for number in sorted(copy)] == await chat.messages(limit=200)


async def _write_for_a_while(chat: ChatAt, writer: int) -> None:
    for round_number in range(10):
        message = await chat.post(f"writer {writer}, round {round_number}")
        await chat.edit(message["number"], body=f"edited by {writer}")
        if round_number % 3 == 0:
            await chat.delete(message["number"])
