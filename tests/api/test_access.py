"""Access: the admin key, no open door by accident, origins, rate limits, secrets (API.md, "Access")."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from tests.api.problems import expect_not_found, expect_problem
from tests.api.shapes import UNKNOWN_TOKEN
from tests.client import Application, ChatAt, Client, expect
from tests.conftest import BuildHouse, Connect, running_house
from tests.houses import House, HouseDidNotStart
from tests.live_stream import open_stream

ADMIN_KEY = "an-admin-key-of-the-tests"
SHOP, CHAT_WIDGET = "https://shop.example", "http://localhost:3000"
ELSEWHERE = "https://elsewhere.example"
# RFC 5737: belongs to no machine, so a server that is told to listen there never opens a port.
NOBODYS_ADDRESS = "192.0.2.1"
BURST = 12


@pytest.fixture(scope="module")
def guarded(house_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with an admin key and two allowed origins, logging everything it can."""
    settings = {
        "admin_key": ADMIN_KEY,
        "cors_origins": f"{SHOP},{CHAT_WIDGET}",
        "log_level": "debug",
        "log_format": "json",
    }
    with running_house(house_name, tmp_path_factory.mktemp("guarded"), settings) as own:
        yield own


@pytest.fixture
async def admin(guarded: House, connect: Connect) -> Client:
    """A client that carries the admin key."""
    return connect(guarded, {"Authorization": f"Bearer {ADMIN_KEY}"})


@pytest.fixture
async def anyone(guarded: House, connect: Connect) -> Client:
    """A client that carries nothing."""
    return connect(guarded)


@pytest.fixture
async def shop(admin: Client) -> Application:
    """A fresh application of the guarded house."""
    return await admin.create_application("Shop")


ADMIN_OPERATIONS = [
    ("POST", "/applications"),
    ("GET", "/applications"),
    ("HEAD", "/applications"),
    ("PUT", "/applications/{token}"),
    ("PATCH", "/applications/{token}"),
    ("DELETE", "/applications/{token}"),
]
NO_CREDENTIALS: dict[str, dict[str, str]] = {
    "none": {},
    "another key": {"Authorization": "Bearer another-key"},
    "a longer key": {"Authorization": f"Bearer {ADMIN_KEY}x"},
    "a shorter key": {"Authorization": f"Bearer {ADMIN_KEY[:-1]}"},
    "no key": {"Authorization": "Bearer"},
    "another scheme": {"Authorization": f"Basic {ADMIN_KEY}"},
    "no scheme": {"Authorization": ADMIN_KEY},
    "another header": {"X-Application-Token": ADMIN_KEY},
}


@pytest.mark.parametrize("headers", NO_CREDENTIALS.values(), ids=NO_CREDENTIALS)
async def test_the_applications_are_closed_without_the_admin_key(
    anyone: Client, shop: Application, headers: dict[str, str]
) -> None:
    """Creating, listing, renaming and erasing are 401, with a challenge, for any token alike."""
    for (method, path), token in itertools.product(ADMIN_OPERATIONS, (shop["token"], UNKNOWN_TOKEN)):
        response = await anyone.request(method, path.format(token=token), json={"name": "x"}, headers=headers)
        if method == "HEAD":
            assert response.status_code == 401
        else:
            expect_problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].lower().startswith("bearer")
    assert await anyone.read_application(shop["token"]) == shop


async def test_the_admin_key_opens_the_applications(admin: Client, shop: Application) -> None:
    """With the key everything works as without one set."""
    assert shop["token"] in [each["token"] for each in await admin.get_json("/applications", limit=200)]
    path = f"/applications/{shop['token']}"
    for method in ("PUT", "PATCH"):
        expect(await admin.request(method, path, json={"name": f"{method} Shop"}), 200)
    await admin.erase_application(shop["token"])
    expect_not_found(await admin.get(path))
    expect_not_found(await admin.request("DELETE", path))


async def test_the_scheme_of_the_admin_key_has_no_case(anyone: Client) -> None:
    """RFC 9110: authentication schemes are compared without case; the key itself is not."""
    for scheme in ("bearer", "BEARER"):
        expect(await anyone.get("/applications", headers={"Authorization": f"{scheme} {ADMIN_KEY}"}), 200)
    upper = {"Authorization": f"Bearer {ADMIN_KEY.upper()}"}
    expect_problem(await anyone.get("/applications", headers=upper), 401, "unauthorized")


async def test_the_admin_key_is_asked_for_before_the_body_is_judged(anyone: Client, shop: Application) -> None:
    """Who may not create learns nothing about what would be wrong with the request."""
    expect_problem(await anyone.post("/applications", content=b"{"), 401, "unauthorized")
    response = await anyone.request("PATCH", f"/applications/{shop['token']}", content=b"{")
    expect_problem(response, 401, "unauthorized")


async def test_a_replay_needs_the_admin_key_too(admin: Client, anyone: Client) -> None:
    """An idempotency key is no credential."""
    options: dict[str, Any] = {"json": {"name": "Once"}, "headers": {"Idempotency-Key": "replay-needs-admin"}}
    expect(await admin.post("/applications", **options), 201)
    expect_problem(await anyone.post("/applications", **options), 401, "unauthorized")


async def test_a_token_opens_its_chats_and_messages_without_the_admin_key(anyone: Client, shop: Application) -> None:
    """Whoever holds the token reads the application and works in it, on every path, aliases included."""
    token = shop["token"]
    assert await anyone.read_application(token) == shop
    chat = await anyone.create_chat(token, title="Open")
    expect(await anyone.post(f"/chats/{token}"), 201)
    expect(await chat.request("PATCH", json={"title": "Still open"}), 200)
    assert len(await anyone.list_chats(token)) == 2
    await chat.post_batch("one", "two")
    await chat.edit(1, body="edited")
    await chat.delete(2)
    bearer = {"Authorization": f"Bearer {token}"}
    expect(await anyone.post("/chats/1/messages", json={"body": "three"}, headers=bearer), 201)
    expect(await anyone.get("/chats/1/messages/search", params={"q": "x"}, headers=bearer), 200)
    assert len(await chat.messages()) == 3
    await chat.search("x")
    await anyone.search(token, "x")
    async with chat.follow() as stream:
        posted = await chat.post()
        assert (await stream.next_event()).message == posted


async def test_an_application_token_is_no_admin_key(admin: Client, anyone: Client, shop: Application) -> None:
    """A token administers nothing, not even its own application: 403, and only as long as it is one."""
    headers = {"Authorization": f"Bearer {shop['token']}"}
    for (method, path), token in itertools.product(ADMIN_OPERATIONS, (shop["token"], UNKNOWN_TOKEN)):
        response = await anyone.request(method, path.format(token=token), json={"name": "x"}, headers=headers)
        if method == "HEAD":
            assert response.status_code == 403
        else:
            expect_problem(response, 403, "forbidden")
        assert "www-authenticate" not in response.headers
    assert await anyone.read_application(shop["token"]) == shop
    await admin.erase_application(shop["token"])
    expect_problem(await anyone.get("/applications", headers=headers), 401, "unauthorized")


async def test_the_admin_key_is_no_application_token(anyone: Client) -> None:
    """On an alias the admin key names no application: 404, as any unknown token."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    expect_not_found(await anyone.post("/chats/1/messages", json={"body": "x"}, headers=headers))


async def test_operators_paths_are_open(anyone: Client) -> None:
    """Health, metrics and documents need no key."""
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/swagger/index.html"):
        expect(await anyone.get(path), 200)


async def test_without_an_admin_key_everything_is_open(client: Client) -> None:
    """As in the seed: whoever reaches the server creates, lists, renames and erases."""
    application = await client.create_application()
    path = f"/applications/{application['token']}"
    expect(await client.get("/applications"), 200)
    expect(await client.request("PATCH", path, json={"name": "y"}), 200)
    expect(await client.request("DELETE", path, headers={"Authorization": "Bearer whatever"}), 204)


def ended(house: House) -> str:
    """What a house said that must end by itself, with an error code and no traceback."""
    house.spawn()
    assert house.wait_for_exit() not in (0, -9)
    said = house.log_text()
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_open_server_refuses_to_listen_beyond_loopback(build_house: BuildHouse, host: str) -> None:
    """It ends at once, and says which setting would allow it."""
    said = ended(build_house(host=host))
    assert "CHAT_ALLOW_OPEN" in said
    assert "CHAT_ADMIN_KEY" in said


def test_open_must_be_allowed_in_so_many_words(build_house: BuildHouse) -> None:
    """A 0 allows nothing."""
    assert "CHAT_ALLOW_OPEN" in ended(build_house(host=NOBODYS_ADDRESS, allow_open=0))


@pytest.mark.parametrize("settings", [{"allow_open": 1}, {"admin_key": ADMIN_KEY}], ids=["told so", "guarded"])
def test_a_server_that_may_listen_beyond_loopback_tries_to(build_house: BuildHouse, settings: dict[str, Any]) -> None:
    """The refusal is gone: what remains is that this machine does not own the address."""
    said = ended(build_house(host=NOBODYS_ADDRESS, **settings))
    assert "CHAT_ALLOW_OPEN" not in said
    assert NOBODYS_ADDRESS in said


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
async def test_every_loopback_address_is_loopback(build_house: BuildHouse, connect: Connect, host: str) -> None:
    """Not only 127.0.0.1 is safe to be open on."""
    house = build_house(host=host)
    try:
        house.start()
    except HouseDidNotStart as failure:
        pytest.fail(str(failure))
    await connect(house).create_application()


EXPOSED = {
    *("link", "location", "x-request-id", "idempotency-replayed", "retry-after"),
    *("ratelimit", "ratelimit-policy", "allow"),
}
CORS_HEADERS = ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"]


def preflight(origin: str, method: str = "POST", headers: str = "content-type") -> dict[str, str]:
    """The headers of a browser's question before a cross-origin request."""
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


def granted(response: httpx.Response, name: str) -> set[str]:
    """A comma-separated list of a header, in lower case."""
    return {each.strip().lower() for each in response.headers.get(name, "").split(",") if each.strip()}


async def test_no_origin_is_granted_unless_named(client: Client, chat: ChatAt) -> None:
    """Without the setting no answer carries a grant, to a request or to a preflight."""
    for response in [
        await client.get(chat.path, headers={"Origin": SHOP}),
        await client.post("/applications", json={"name": "x"}, headers={"Origin": SHOP}),
        await client.get("/nothing", headers={"Origin": SHOP}),
        asked := await client.request("OPTIONS", chat.path, headers=preflight(SHOP, "PATCH")),
    ]:
        assert not any(name in response.headers for name in CORS_HEADERS)
    expect_problem(asked, 405, "method_not_allowed")
    assert granted(asked, "allow") == {"get", "head", "patch"}


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", SHOP + ".evil.example", "http://shop.example", SHOP + ":444"])
async def test_an_origin_that_is_not_named_gets_no_grant(anyone: Client, shop: Application, origin: str) -> None:
    """Named origins are compared whole: scheme, host and port. To others OPTIONS is a method like any other: 405."""
    path = f"/applications/{shop['token']}"
    answered = expect(await anyone.get(path, headers={"Origin": origin}), 200)
    asked = await anyone.request("OPTIONS", path, headers=preflight(origin, "GET"))
    expect_problem(asked, 405, "method_not_allowed")
    assert granted(asked, "allow") == {"get", "head", "put", "patch", "delete"}
    for response in (answered, asked):
        assert not any(name in response.headers for name in (*CORS_HEADERS, "access-control-expose-headers"))


async def test_a_named_origin_that_does_not_ask_first_gets_no_preflight(anyone: Client, shop: Application) -> None:
    """OPTIONS without the method that it asks for is no such question: 405, which that origin may read."""
    response = await anyone.request("OPTIONS", f"/applications/{shop['token']}", headers={"Origin": SHOP})
    expect_problem(response, 405, "method_not_allowed")
    assert response.headers["access-control-allow-origin"] == SHOP
    assert "access-control-allow-methods" not in response.headers


@pytest.mark.parametrize("origin", [SHOP, CHAT_WIDGET])
async def test_a_named_origin_may_read_answers_and_refusals(anyone: Client, shop: Application, origin: str) -> None:
    """The grant names the very origin, answers vary by it, and the headers of the contract are exposed."""
    for path in (
        f"/applications/{shop['token']}",
        f"/applications/{shop['token']}/chats",
        "/nothing",
        "/applications",
    ):
        response = await anyone.get(path, headers={"Origin": origin})
        assert response.headers["access-control-allow-origin"] == origin
        assert "origin" in granted(response, "vary")
        assert granted(response, "access-control-expose-headers") == EXPOSED


async def test_answers_vary_by_origin_even_for_those_without_one(anyone: Client, shop: Application) -> None:
    """A shared cache must not serve an answer without a grant to an origin that has one."""
    response = await anyone.get(f"/applications/{shop['token']}")
    assert "origin" in granted(response, "vary")


@pytest.mark.parametrize(
    ("method", "below"), [("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/chats")]
)
async def test_a_named_origin_passes_the_preflight(anyone: Client, shop: Application, method: str, below: str) -> None:
    """All methods and all request headers of the contract are granted, without any credential."""
    asked = "authorization,content-type,idempotency-key,last-event-id,x-application-token,x-request-id"
    path = f"/applications/{shop['token']}{below}"
    response = await anyone.request("OPTIONS", path, headers=preflight(SHOP, method, asked))
    assert expect(response, 204).content == b""
    assert response.headers["access-control-allow-origin"] == SHOP
    assert method.lower() in granted(response, "access-control-allow-methods")
    assert set(asked.split(",")) <= granted(response, "access-control-allow-headers")


async def test_a_named_origin_may_follow_a_chat(anyone: Client, shop: Application) -> None:
    """Streams carry the grant as well."""
    chat = await anyone.create_chat(shop["token"])
    async with open_stream(anyone.http, f"{chat.path}/events", {}, {"Origin": SHOP}) as stream:
        assert stream.response.headers["access-control-allow-origin"] == SHOP


@pytest.fixture(scope="module")
def limited(house_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with low rate limits."""
    settings = {"rate_per_s": 1, "rate_burst": BURST, "unknown_rate_per_s": 10}
    with running_house(house_name, tmp_path_factory.mktemp("limited"), settings) as own:
        yield own


async def exhaust(client: Client, paths: Iterable[str], burst: int) -> httpx.Response:
    """Read until the limit refuses, and return the refusal, which comes once the burst is used up."""
    for count, path in enumerate(itertools.islice(paths, 2000), start=1):
        response = await client.get(path)
        if response.status_code == 429:
            assert count > burst, f"refused request {count} of a burst of {burst}"
            return response
    raise AssertionError("the rate limit never refused")


async def test_a_rate_limit_belongs_to_one_application(limited: House, connect: Connect) -> None:
    """Over it: 429 with what a client needs to come back. Other applications and operators notice nothing."""
    client = connect(limited)
    busy = await client.create_chat((await client.create_application())["token"])
    calm = await client.create_chat((await client.create_application())["token"])
    refused = await exhaust(client, itertools.repeat(f"/applications/{busy.token}/chats"), burst=BURST - 2)
    expect_problem(refused, 429, "too_many")
    assert int(refused.headers["retry-after"]) >= 1
    assert re.fullmatch(r'"[^"]+";\s*q=\d+;\s*w=\d+.*', refused.headers["ratelimit-policy"])
    assert re.fullmatch(r'"[^"]+";\s*r=0(;\s*t=\d+)?.*', refused.headers["ratelimit"])
    for response in [await busy.request("POST", "/messages", json={"body": "refused"}) for _ in range(4)]:
        if response.status_code == 201:
            assert response.json()["number"] == 1
    await calm.post()
    await calm.messages()
    for path in ("/health/live", "/health/ready", "/metrics"):
        expect(await client.get(path), 200)


async def test_a_request_refused_by_the_rate_limit_consumes_no_number(limited: House, connect: Connect) -> None:
    """Among many posts over the limit, the accepted ones are numbered 1 to n."""
    client = connect(limited)
    chat = await client.create_chat((await client.create_application())["token"])
    answers = [await chat.request("POST", "/messages", json={"body": "x"}) for _ in range(3 * BURST)]
    assert {answer.status_code for answer in answers} == {201, 429}
    numbers = [answer.json()["number"] for answer in answers if answer.status_code == 201]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_unknown_tokens_are_limited_by_address(limited: House, connect: Connect) -> None:
    """Guessing tokens runs into the limit, however many different ones are tried; a known one still works."""
    client = connect(limited)
    chat = await client.create_chat((await client.create_application())["token"])
    guesses = (f"/applications/{index:A>43}/chats" for index in itertools.count())
    refused = await exhaust(client, guesses, burst=9)
    expect_problem(refused, 429, "too_many")
    assert int(refused.headers["retry-after"]) >= 1
    await chat.post()


async def test_wrong_admin_keys_count_as_unknown_tokens(serve: BuildHouse, connect: Connect) -> None:
    """Who guesses keys and tokens in turn has one limit for both. No key and a known token are no guesses."""
    rate, burst = 5, 10
    client = connect(serve(admin_key=ADMIN_KEY, unknown_rate_per_s=rate))
    right = {"Authorization": f"Bearer {ADMIN_KEY}"}
    shop = expect(await client.post("/applications", json={"name": "Shop"}, headers=right), 201).json()
    for _ in range(3 * burst):
        expect_problem(await client.get("/applications"), 401, "unauthorized")
        known = await client.get("/applications", headers={"Authorization": f"Bearer {shop['token']}"})
        expect_problem(known, 403, "forbidden")
    began = time.monotonic()
    answers = []
    for count in range(3 * burst):
        method, path = ADMIN_OPERATIONS[count % len(ADMIN_OPERATIONS)]
        guess = {"Authorization": f"Bearer {ADMIN_KEY}{count}"}
        path = path.format(token=shop["token"])
        answers.append(await client.request(method, path, json={"name": "x"}, headers=guess))
        answers.append(await client.get(f"/applications/{count:A>43}/chats"))
    took_s = time.monotonic() - began
    assert {answer.status_code for answer in answers[::2]} == {401, 429}
    assert {answer.status_code for answer in answers[1::2]} == {404, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert burst <= len(answers) - len(refused) <= burst + took_s * rate + 1
    for answer in refused:
        assert answer.headers["ratelimit-policy"] == f'"unknown-token";q={burst};w=2'
        assert int(answer.headers["retry-after"]) >= 1
    expect(await client.get("/applications", headers=right), 200)
    expect(await client.post(f"/applications/{shop['token']}/chats"), 201)


async def test_the_aliases_count_for_their_application(limited: House, connect: Connect) -> None:
    """An application cannot evade its limit by the seed's paths."""
    client = connect(limited)
    chat = await client.create_chat((await client.create_application())["token"])
    await exhaust(client, itertools.repeat(f"/applications/{chat.token}/chats"), burst=BURST - 2)
    statuses = [
        (await client.post("/chats/1/messages", json={"body": "x"}, params={"token": chat.token})).status_code
        for _ in range(5)
    ]
    assert 429 in statuses


async def test_tokens_and_keys_never_appear_in_a_log_or_a_metric(
    guarded: House, admin: Client, anyone: Client, shop: Application
) -> None:
    """Wherever a secret is sent, well or wrongly, at the most talkative level."""
    token, idempotency_key = shop["token"], "a-key-that-nobody-logs"
    chat = await anyone.create_chat(token)
    secret_headers = {"Authorization": f"Bearer {token}", "X-Application-Token": token}
    secret_headers |= {"Idempotency-Key": idempotency_key}
    for method, path in [
        ("GET", f"/applications/{token}"),
        ("GET", f"/applications/{token}/nothing"),
        ("GET", f"/applications/{token}/chats?limit=0"),
        ("PUT", f"/applications/{token}/chats"),
        ("POST", f"/chats/{token}"),
        ("POST", f"/chats/1/messages?token={token}"),
        ("GET", f"/chats/1/messages/search?q=x&token={token}"),
        ("GET", f"/{token}"),
        ("GET", f"/applications/{token}x"),
        ("GET", f"/applications?token={token}&limit={ADMIN_KEY}"),
        ("POST", "/applications"),
        ("GET", f"{chat.path}/events?after=x"),
    ]:
        await anyone.request(method, path, json={"body": "x"}, headers=secret_headers)
        await admin.request(method, path, json={"name": "x"})
        await anyone.request(method, path, content=b"{", headers={"X-Admin-Key": ADMIN_KEY})
    async with chat.follow():
        await chat.post()
    metrics = expect(await anyone.get("/metrics"), 200).text
    for secret in (token, ADMIN_KEY, idempotency_key):
        assert secret not in metrics
        assert secret not in guarded.log_text()
    assert guarded.log_text(), "nothing was logged, so nothing was proven"
