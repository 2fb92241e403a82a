"""Lists: windows, order, limits and Link headers (API.md, "Lists" and "Fine print: Windows").

Not tested: that a page costs the same at any depth. That is measured by the benchmarks.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.api.links import link, link_query, pages
from tests.api.problems import expect_invalid
from tests.api.shapes import APPLICATION_FIELDS, CHAT_FIELDS
from tests.client import Application, ChatAt, Client, expect


@pytest.fixture
async def ten(chat: ChatAt) -> ChatAt:
    """A chat with the messages 1 to 10."""
    await chat.post_batch(*(f"message {number}" for number in range(1, 11)))
    return chat


@pytest.fixture
async def seven_chats(client: Client, application: Application) -> str:
    """The token of an application with the chats 1 to 7."""
    for number in range(1, 8):
        await client.create_chat(application["token"], title=f"chat {number}")
    return application["token"]


async def numbers(chat: ChatAt, **params: Any) -> list[int]:
    """The numbers of one page of messages."""
    return [message["number"] for message in await chat.messages(**params)]


WINDOWS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ({"order": "asc"}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ({"order": "desc"}, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
    ({"limit": 3}, [1, 2, 3]),
    ({"limit": 3, "order": "desc"}, [10, 9, 8]),
    ({"after": 3, "limit": 3}, [4, 5, 6]),
    ({"after": 3, "limit": 3, "order": "desc"}, [6, 5, 4]),
    ({"before": 8, "limit": 3}, [5, 6, 7]),
    ({"before": 8, "limit": 3, "order": "desc"}, [7, 6, 5]),
    ({"after": 3, "before": 8}, [4, 5, 6, 7]),
    ({"after": 3, "before": 8, "order": "desc"}, [7, 6, 5, 4]),
    ({"after": 3, "before": 4}, []),
    ({"after": 8, "before": 3}, []),
    ({"after": 0, "limit": 2}, [1, 2]),
    ({"after": 9}, [10]),
    ({"after": 10}, []),
    ({"after": 10**9}, []),
    ({"before": 1}, []),
    ({"before": 2}, [1]),
    ({"before": 11, "limit": 2}, [9, 10]),
    ({"before": 10**9, "limit": 2}, [9, 10]),
]


@pytest.mark.parametrize(("params", "expected"), WINDOWS, ids=[str(params) for params, _ in WINDOWS])
async def test_windows_over_messages(ten: ChatAt, params: dict[str, Any], expected: list[int]) -> None:
    """`after` takes what is next above, `before` what is next below; `order` only turns the answer round."""
    assert await numbers(ten, **params) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"limit": 2}, [1, 2]),
        ({"after": 2, "limit": 2}, [3, 4]),
        ({"before": 6, "limit": 2}, [4, 5]),
        ({"after": 2, "before": 5}, [3, 4]),
        ({"after": 7}, []),
        ({"page": 1, "limit": 3}, [1, 2, 3]),
        ({"page": 3, "limit": 3}, [7]),
        ({"page": 4, "limit": 3}, []),
        ({"page": 10**6}, []),
    ],
    ids=str,
)
async def test_windows_over_chats(
    client: Client, seven_chats: str, params: dict[str, Any], expected: list[int]
) -> None:
    """Chats page by number like messages, and by page as in the seed."""
    listed = await client.list_chats(seven_chats, **params)
    assert [each["number"] for each in listed] == expected
    assert all(set(each) == CHAT_FIELDS for each in listed)


async def test_a_list_item_is_the_resource_as_it_is_read(ten: ChatAt, client: Client, seven_chats: str) -> None:
    """Lists and reads show the same message and the same chat."""
    assert (await ten.messages(after=3, limit=1)) == [await ten.message(4)]
    (listed,) = await client.list_chats(seven_chats, after=3, limit=1)
    assert listed == await ChatAt(client, seven_chats, 4).read()


async def test_an_empty_list_is_an_empty_array_without_links(chat: ChatAt, client: Client) -> None:
    """Nothing to list is no error, and leads nowhere."""
    empty = (await client.create_application())["token"]
    for path in (f"{chat.path}/messages", f"/applications/{empty}/chats"):
        response = expect(await client.get(path), 200)
        assert response.json() == []
        assert link(response, "next") is None
        assert link(response, "prev") is None


async def test_tombstones_are_listed_with_their_sender(ten: ChatAt) -> None:
    """Numbers stay complete after a deletion."""
    message = await ten.post("secret", sender="ada")
    await ten.delete(message["number"])
    await ten.delete(5)
    listed = await ten.messages()
    assert [each["number"] for each in listed] == list(range(1, 12))
    assert [each["number"] for each in listed if each["deleted_at"] is not None] == [5, 11]
    assert listed[-1]["sender"] == "ada"


async def test_a_page_holds_50_messages_unless_told_otherwise(chat: ChatAt) -> None:
    """The default page is 50, the largest 200, from either end."""
    await chat.post_batch(*(f"message {number}" for number in range(1, 206)))
    assert await numbers(chat) == list(range(1, 51))
    assert await numbers(chat, order="desc") == list(range(205, 155, -1))
    assert await numbers(chat, before=100) == list(range(50, 100))
    assert await numbers(chat, limit=200) == list(range(1, 201))


@pytest.mark.parametrize("params", [{"limit": 3}, {"limit": 5}, {"limit": 10}, {"limit": 1}], ids=str)
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_next_leads_through_all_messages_once_and_prev_leads_back(
    ten: ChatAt, params: dict[str, Any], order: str
) -> None:
    """To the last page and back: each message once in each direction, no empty page at the end."""
    expected = list(range(1, 11)) if order == "asc" else list(range(10, 0, -1))
    path = f"{ten.path}/messages"
    forward = await pages(ten.client, path, order=order, **params)
    assert [each["number"] for page in forward for each in page] == expected
    assert all(page for page in forward)
    last = expect(await ten.client.get(path, params={"order": order, **params}), 200)
    while (url := link(last, "next")) is not None:
        last = expect(await ten.client.get(url), 200)
    backward = [last.json()]
    while (url := link(last, "prev")) is not None:
        last = expect(await ten.client.get(url), 200)
        backward.append(last.json())
    assert [each["number"] for page in reversed(backward) for each in page] == expected


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_the_first_page_has_no_prev_and_the_last_no_next(ten: ChatAt, order: str) -> None:
    """Links exist exactly where there is something to go to."""
    path = f"{ten.path}/messages"
    first = expect(await ten.client.get(path, params={"limit": 4, "order": order}), 200)
    assert link(first, "prev") is None
    middle = expect(await ten.client.get(link(first, "next") or ""), 200)
    assert link(middle, "prev") is not None
    last = expect(await ten.client.get(link(middle, "next") or ""), 200)
    assert link(last, "next") is None
    assert link(last, "prev") is not None


async def test_a_window_in_the_middle_has_both_links(ten: ChatAt) -> None:
    """`after` and `before` alone both show the way to either side."""
    for params in ({"after": 3, "limit": 3}, {"before": 7, "limit": 3}):
        response = await ten.request("GET", "/messages", params=params)
        following = expect(await ten.client.get(link(response, "next") or ""), 200).json()
        preceding = expect(await ten.client.get(link(response, "prev") or ""), 200).json()
        assert [each["number"] for each in following] == [7, 8, 9]
        assert [each["number"] for each in preceding] == [1, 2, 3]


async def test_links_keep_the_other_parameters_and_stay_on_this_server(ten: ChatAt) -> None:
    """`limit` and `order` travel along; the target is the same path."""
    response = await ten.request("GET", "/messages", params={"after": 3, "limit": 2, "order": "desc"})
    for relation in ("next", "prev"):
        query = link_query(response, relation)
        assert (query["limit"], query["order"]) == ("2", "desc")
        target = urlsplit(link(response, relation) or "")
        assert target.path == f"{ten.path}/messages"
        assert target.netloc == urlsplit(ten.client.url).netloc


async def test_a_message_posted_while_paging_moves_nothing(ten: ChatAt) -> None:
    """Pages by number neither repeat nor skip when the chat grows between them."""
    response = await ten.request("GET", "/messages", params={"limit": 4})
    seen = [each["number"] for each in response.json()]
    while (url := link(response, "next")) is not None:
        if len(seen) < 12:
            await ten.post()
        response = expect(await ten.client.get(url), 200)
        seen += [each["number"] for each in response.json()]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) >= 12


async def test_next_and_prev_lead_through_all_chats(client: Client, seven_chats: str) -> None:
    """Chats page by link like messages, by number and by page."""
    path = f"/applications/{seven_chats}/chats"
    variants: list[dict[str, Any]] = [{"limit": 3}, {"limit": 3, "page": 1}]
    for params in variants:
        found = await pages(client, path, **params)
        assert [[each["number"] for each in page] for page in found] == [[1, 2, 3], [4, 5, 6], [7]]
    backward = await pages(client, path, relation="prev", limit=3, page=3)
    assert [[each["number"] for each in page] for page in backward] == [[7], [4, 5, 6], [1, 2, 3]]
    middle = await client.get(path, params={"limit": 3, "page": 2})
    assert link_query(middle, "next") == {"limit": "3", "page": "3"}
    assert link_query(middle, "prev") == {"limit": "3", "page": "1"}


async def test_applications_are_listed_oldest_first_each_once(client: Client) -> None:
    """The links lead through all applications in the order of their creation; those of one millisecond by token."""
    created = [await client.create_application(f"listed {index}") for index in range(7)]
    found = [each for page in await pages(client, "/applications", limit=200) for each in page]
    assert all(set(each) == APPLICATION_FIELDS for each in found)
    tokens = [each["token"] for each in found]
    assert len(set(tokens)) == len(tokens)
    assert [token for token in tokens if token in {each["token"] for each in created}] == [
        each["token"] for each in sorted(created, key=lambda each: (each["created_at"], each["token"]))
    ]
    times = [each["created_at"] for each in found]
    assert times == sorted(times)


async def test_applications_created_or_erased_while_paging_disturb_nothing(client: Client) -> None:
    """What was created meanwhile comes last, what stayed is neither skipped nor repeated."""
    created = [await client.create_application(f"paged {index}") for index in range(5)]
    response = expect(await client.get("/applications", params={"limit": 5}), 200)
    seen = [each["token"] for each in response.json()]
    await client.erase_application(created[1]["token"])
    latest = await client.create_application("created while paging")
    while (url := link(response, "next")) is not None:
        response = expect(await client.get(url), 200)
        seen += [each["token"] for each in response.json()]
    assert len(set(seen)) == len(seen)
    assert {each["token"] for each in (created[0], *created[2:], latest)} <= set(seen)
    assert seen.index(latest["token"]) > seen.index(created[4]["token"])


async def test_prev_leads_back_through_the_applications(client: Client) -> None:
    """From the second page of applications, `prev` shows the first again."""
    for _ in range(5):
        await client.create_application()
    first = expect(await client.get("/applications", params={"limit": 2}), 200)
    assert link(first, "prev") is None
    second = expect(await client.get(link(first, "next") or ""), 200)
    assert link_query(second, "next")["limit"] == "2"
    back = expect(await client.get(link(second, "prev") or ""), 200)
    assert [each["token"] for each in back.json()] == [each["token"] for each in first.json()]


async def test_applications_have_pages_as_in_the_seed(client: Client) -> None:
    """`page` and `limit` cut the same list into numbered pages."""
    for _ in range(5):
        await client.create_application()
    both = expect(await client.get("/applications", params={"limit": 4}), 200).json()
    first = expect(await client.get("/applications", params={"limit": 2, "page": 1}), 200)
    second = expect(await client.get(link(first, "next") or ""), 200).json()
    assert [each["token"] for each in [*first.json(), *second]] == [each["token"] for each in both]
    assert link_query(first, "next") == {"limit": "2", "page": "2"}
    assert expect(await client.get("/applications", params={"page": 10**6}), 200).json() == []


async def test_a_cursor_that_no_link_carried_is_400(client: Client) -> None:
    """An opaque cursor is not for making up."""
    for _ in range(2):
        await client.create_application()
    response = expect(await client.get("/applications", params={"limit": 1}), 200)
    (name,) = set(link_query(response, "next")) - {"limit"}
    for forged in ("", "x", "!!", "AAAA", "é", "9" * 500):
        expect_invalid(await client.get("/applications", params={name: forged}), f"?{name}")


LISTS = ["/applications", "/applications/{token}/chats", "/applications/{token}/chats/1/messages"]


@pytest.mark.parametrize("limit", ["0", "201", "-1", "abc", "", "1.5", "1e2", "９", " 5", "99999999999999999999"])
async def test_a_limit_out_of_range_is_400_never_cut(client: Client, chat: ChatAt, limit: str) -> None:
    """Every list and search takes 1 to 200 and blames `?limit` for anything else."""
    for path in LISTS:
        response = await client.get(path.format(token=chat.token), params={"limit": limit})
        expect_invalid(response, "?limit")
    for path in (f"{chat.path}/messages/search", f"/applications/{chat.token}/messages/search"):
        expect_invalid(await client.get(path, params={"q": "x", "limit": limit}), "?limit")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["1", "200"])
async def test_the_smallest_and_largest_limit_are_accepted(client: Client, chat: ChatAt, path: str, limit: str) -> None:
    """1 and 200 are in range."""
    await chat.post()
    response = expect(await client.get(path.format(token=chat.token), params={"limit": limit}), 200)
    assert 1 <= len(response.json()) <= int(limit)


@pytest.mark.parametrize(
    ("name", "value"),
    [("after", "abc"), ("after", "-1"), ("after", ""), ("before", "x"), ("before", "-5"), ("before", "1.0")],
)
async def test_an_ill_formed_bound_is_400(client: Client, chat: ChatAt, name: str, value: str) -> None:
    """Bounds are whole numbers, not negative."""
    for path in LISTS[1:]:
        expect_invalid(await client.get(path.format(token=chat.token), params={name: value}), f"?{name}")


@pytest.mark.parametrize("order", ["up", "", "ASC", "asc,desc"])
async def test_an_unknown_order_is_400(chat: ChatAt, order: str) -> None:
    """`order` is `asc` or `desc`."""
    expect_invalid(await chat.request("GET", "/messages", params={"order": order}), "?order")


@pytest.mark.parametrize("page", ["0", "-1", "abc", "", "1.5"])
async def test_an_ill_formed_page_is_400(client: Client, chat: ChatAt, page: str) -> None:
    """Pages are counted from 1."""
    for path in LISTS[:2]:
        expect_invalid(await client.get(path.format(token=chat.token), params={"page": page}), "?page")


@pytest.mark.parametrize("other", ["after", "before"])
async def test_a_page_goes_with_limit_only(client: Client, chat: ChatAt, other: str) -> None:
    """A page and a window together would mean two things at once: 400."""
    expect_invalid(await client.get(f"/applications/{chat.token}/chats", params={"page": "1", other: "1"}))


@pytest.mark.parametrize("name", ["after", "before", "changed_after", "page"])
async def test_a_number_beyond_every_range_is_no_defect(chat: ChatAt, name: str) -> None:
    """A bound that no database integer holds is an empty page or a 400, never a 500."""
    for value in (2**31, 2**63 - 1, 2**63, 10**30):
        for path in (f"{chat.path}/messages", f"/applications/{chat.token}/chats"):
            assert (await chat.client.get(path, params={name: str(value)})).status_code in (200, 400)
