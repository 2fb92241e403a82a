"""Applications: creating, reading, renaming, erasing (API.md, "Resources" and "Operations")."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin, urlsplit

import pytest

from tests.api.problems import expect_invalid, expect_not_found
from tests.api.shapes import APPLICATION_FIELDS, DELICATE_TEXTS, UNKNOWN_TOKEN, moment
from tests.client import Application, ChatAt, Client, expect
from tests.eventually import eventually


async def test_creating_an_application_answers_201_with_exactly_its_fields(client: Client) -> None:
    """The answer is the application as documented, and nothing else: no database id."""
    response = expect(await client.post("/applications", json={"name": "Shop"}), 201)
    assert set(response.json()) == APPLICATION_FIELDS
    assert response.json()["name"] == "Shop"
    assert response.json()["chats_count"] == 0
    assert response.headers["content-type"].split(";")[0] == "application/json"


async def test_the_location_of_a_new_application_leads_to_it(client: Client) -> None:
    """`Location` names the path under which the application is read."""
    response = expect(await client.post("/applications", json={"name": "Shop"}), 201)
    target = urljoin(str(response.request.url), response.headers["location"])
    assert urlsplit(target).path == f"/applications/{response.json()['token']}"
    assert expect(await client.get(target), 200).json() == response.json()


async def test_a_token_is_32_bytes_in_base64url_and_never_the_same_twice(client: Client) -> None:
    """Tokens are 43 characters, decode to 32 bytes, and differ."""
    tokens = [(await client.create_application())["token"] for _ in range(5)]
    assert len(set(tokens)) == 5
    for token in tokens:
        assert len(token) == 43
        assert len(base64.b64decode(token + "=", altchars=b"-_", validate=True)) == 32


async def test_times_are_utc_with_milliseconds(application: Application) -> None:
    """A new application was created and last updated at the same moment: now."""
    assert application["created_at"] == application["updated_at"]
    assert abs(datetime.now(UTC) - moment(application["created_at"])) < timedelta(minutes=1)


async def test_an_application_is_read_as_it_was_created(client: Client, application: Application) -> None:
    """GET returns what POST returned."""
    assert await client.read_application(application["token"]) == application


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_renaming_changes_the_name_and_the_time_of_the_update(
    client: Client, application: Application, method: str
) -> None:
    """PUT and PATCH both rename; token and creation time stay."""
    path = f"/applications/{application['token']}"
    renamed = expect(await client.request(method, path, json={"name": "Renamed"}), 200).json()
    assert renamed["name"] == "Renamed"
    assert renamed["token"] == application["token"]
    assert renamed["created_at"] == application["created_at"]
    assert moment(renamed["updated_at"]) >= moment(application["updated_at"])
    assert await client.read_application(application["token"]) == renamed


async def test_a_patch_that_names_nothing_changes_nothing(client: Client, application: Application) -> None:
    """`{}` is 200 and leaves the application as it was."""
    response = await client.request("PATCH", f"/applications/{application['token']}", json={})
    assert expect(response, 200).json() == application


async def test_a_put_must_name_the_name(client: Client, application: Application) -> None:
    """PUT replaces the whole, so a PUT without a name is refused."""
    expect_invalid(await client.request("PUT", f"/applications/{application['token']}", json={}), "/name")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_name_cannot_be_null(client: Client, application: Application, method: str) -> None:
    """The name is not optional, so null is no name."""
    path = f"/applications/{application['token']}"
    expect_invalid(await client.request(method, path, json={"name": None}), "/name")
    assert await client.read_application(application["token"]) == application


@pytest.mark.parametrize("name", DELICATE_TEXTS.values(), ids=DELICATE_TEXTS)
async def test_a_name_is_kept_byte_for_byte(client: Client, name: str) -> None:
    """No trimming, no normalising, in the answer and in a later read."""
    created = await client.create_application(name)
    assert created["name"] == name
    assert (await client.read_application(created["token"]))["name"] == name


@pytest.mark.parametrize("payload", [{}, {"name": None}, {"name": 5}, {"name": ["x"]}, {"name": True}])
async def test_an_application_needs_a_name_that_is_text(client: Client, payload: object) -> None:
    """A name that is missing or of another type is blamed by its pointer."""
    expect_invalid(await client.post("/applications", json=payload), "/name")


@pytest.mark.parametrize("field", ["token", "chats_count", "created_at", "id", "title"])
async def test_an_application_takes_no_other_field(client: Client, application: Application, field: str) -> None:
    """A field that is unknown, or the server's own, is refused on creating and on renaming."""
    payload = {"name": "Shop", field: 1}
    expect_invalid(await client.post("/applications", json=payload), f"/{field}")
    for method in ("PUT", "PATCH"):
        response = await client.request(method, f"/applications/{application['token']}", json=payload)
        expect_invalid(response, f"/{field}")
    assert await client.read_application(application["token"]) == application


async def test_an_erased_application_is_gone_with_everything_in_it(client: Client, chat: ChatAt) -> None:
    """After the 204 every path below the token is 404, aliases included."""
    await chat.post("needle")
    response = await client.request("DELETE", f"/applications/{chat.token}")
    assert expect(response, 204).content == b""
    application, token = f"/applications/{chat.token}", chat.token
    for method, path in [
        ("GET", application),
        ("PATCH", application),
        ("PUT", application),
        ("DELETE", application),
        ("GET", f"{application}/chats"),
        ("POST", f"{application}/chats"),
        ("GET", chat.path),
        ("PATCH", chat.path),
        ("GET", f"{chat.path}/messages"),
        ("POST", f"{chat.path}/messages"),
        ("POST", f"{chat.path}/messages/batch"),
        ("GET", f"{chat.path}/messages/1"),
        ("PATCH", f"{chat.path}/messages/1"),
        ("DELETE", f"{chat.path}/messages/1"),
        ("GET", f"{chat.path}/messages/search?q=needle"),
        ("GET", f"{application}/messages/search?q=needle"),
        ("GET", f"{chat.path}/events"),
        ("POST", f"/chats/{token}"),
        ("POST", f"/chats/1/messages?token={token}"),
        ("GET", f"/chats/1/messages/search?q=needle&token={token}"),
    ]:
        expect_not_found(await client.request(method, path))


async def test_erasing_leaves_every_other_application_alone(client: Client, chat: ChatAt, other_chat: ChatAt) -> None:
    """What one application holds does not depend on another's end."""
    kept = await other_chat.post("needle")
    await chat.post("needle")
    await client.erase_application(chat.token)
    assert await other_chat.messages() == [kept]
    await eventually(lambda: other_chat.search("needle"), [kept])


async def test_erasing_while_others_write_is_a_404_for_them_and_no_defect(client: Client, chat: ChatAt) -> None:
    """Each writer was in time (201) or too late (404); afterwards nothing is left."""
    chats = f"/applications/{chat.token}/chats"
    early = [chat.request("POST", "/messages", json={"body": "x"}) for _ in range(20)]
    late = [client.post(chats, json={}) for _ in range(20)]
    late += [chat.request("GET", "/messages/search?q=x"), chat.request("PATCH", json={"title": "x"})]
    erase = client.request("DELETE", f"/applications/{chat.token}")
    answers = await asyncio.gather(*early, erase, *late)
    assert {answer.status_code for answer in answers} <= {200, 201, 204, 404}
    assert answers[20].status_code == 204
    expect_not_found(await chat.request("GET", "/messages"))


async def test_chats_count_becomes_the_number_of_chats(client: Client, application: Application) -> None:
    """The count may lag a moment, and then equals the truth."""
    for _ in range(3):
        await client.create_chat(application["token"])

    async def count() -> int:
        return (await client.read_application(application["token"]))["chats_count"]

    await eventually(count, 3)


@pytest.mark.parametrize("token", [UNKNOWN_TOKEN, "short", "A" * 44, "%00", "..%2Fhealth", "é"])
async def test_an_unknown_token_is_404(client: Client, token: str) -> None:
    """Whatever a token looks like, one that opens nothing is not found."""
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        expect_not_found(await client.request(method, f"/applications/{token}", json={"name": "x"}))
