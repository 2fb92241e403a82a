"""What operators ask for: health and metrics (API.md, "Operations", promise 4)."""

from __future__ import annotations

import re

from tests.api.problems import expect_not_found
from tests.client import ChatAt, Client, expect
from tests.conftest import BuildHouse, Connect
from tests.eventually import eventually

SAMPLE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\.)*",?)*\})? (\S+)( \d+)?')


async def metrics(client: Client) -> str:
    """The metrics in the text exposition format."""
    response = expect(await client.get("/metrics"), 200)
    assert response.headers["content-type"].split(";")[0] == "text/plain"
    return response.text


def samples(text: str) -> dict[str, float]:
    """Series and values; each line must be well-formed."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            found[line.rsplit(" ", 1)[0]] = float(match[4])
    return found


async def test_a_running_server_is_live_and_ready(client: Client) -> None:
    """Both answer 200 with JSON."""
    for path in ("/health/live", "/health/ready"):
        response = expect(await client.get(path), 200)
        assert response.headers["content-type"].split(";")[0] == "application/json"
        assert isinstance(response.json(), dict)


async def test_the_health_of_other_things_is_404(client: Client) -> None:
    """There are two health checks."""
    expect_not_found(await client.get("/health"))
    expect_not_found(await client.get("/health/other"))


async def test_metrics_are_well_formed_and_documented(client: Client, chat: ChatAt) -> None:
    """Every sample parses, belongs to a metric with a type and a help text, and appears once."""
    await chat.post()
    text = await metrics(client)
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(set(series)) == len(series)
    assert samples(text)
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    typed = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram|summary|untyped)$", text, re.MULTILINE))
    assert helped == typed
    for name in {each.partition("{")[0] for each in series}:
        family = re.sub(r"_(bucket|count|sum|created)$", "", name)
        assert {name, family} & typed, name


async def test_the_lag_of_the_backlog_is_a_metric(client: Client) -> None:
    """An operator sees how far counts and search are behind."""
    assert any("lag" in name for name in samples(await metrics(client)))


async def test_requests_are_counted(serve: BuildHouse, connect: Connect) -> None:
    """After some requests of a kind the counters have grown by just as many."""
    client = connect(serve())
    chat = await client.create_chat((await client.create_application())["token"])
    before = samples(await metrics(client))
    for _ in range(7):
        await chat.post()

    async def grown() -> set[float]:
        now = samples(await metrics(client))
        return {now[name] - before.get(name, 0) for name in now if name.partition("{")[0].endswith("_total")} & {7.0}

    await eventually(grown, {7.0})


async def test_labels_do_not_grow_with_what_is_asked_for(client: Client, chat: ChatAt) -> None:
    """Paths are named by their template: a thousand different paths make no new series."""

    async def ask(name: str) -> None:
        await client.get(f"/nothing-{name}")
        await client.get(f"/applications/{name}/chats")
        await client.get(f"{chat.path}/messages/{len(name)}{name}")

    await ask("first")
    before = set(samples(await metrics(client)))
    for index in range(10):
        await ask(f"x{index}")
    assert set(samples(await metrics(client))) == before
