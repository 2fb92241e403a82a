"""`docker compose up` brings everything up, and nothing is lost whichever service is killed (`make compose-test`).

CHAT_TEST_SEED repeats the choices of a run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import textwrap
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client import ChatAt, Client, expect
from tests.compose.project import OURS, ROOT, SERVERS, SERVICES, Project
from tests.eventually import eventually
from tests.faults.history import Json
from tests.faults.load import Load
from tests.faults.reading import read_everything

CLIENTS = 4
LOAD_S = 3.0
AWAY_S = 5.0
APPLIED_WITHIN_S = 120.0
PAGE = 200
SEED = int(os.environ.get("CHAT_TEST_SEED", random.randrange(1_000_000)))
"""Named in every mark, and so in what a failure tells."""

pytestmark = pytest.mark.timeout(1500)


async def backlog(client: Client) -> dict[str, float]:
    """How many facts wait for each projection."""
    text = expect(await client.get("/metrics"), 200).text
    found = re.findall(r'^chat_backlog_entries\{projection="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {projection: float(entries) for projection, entries in found}


async def applied(client: Client) -> None:
    """Wait until everything that was accepted is in MySQL and in Elasticsearch."""
    deadline = asyncio.get_running_loop().time() + APPLIED_WITHIN_S
    while (waiting := await backlog(client)) != {"store": 0, "search": 0}:
        assert asyncio.get_running_loop().time() < deadline, f"still waiting: {waiting}"
        await asyncio.sleep(0.5)


async def numbers_found(client: Client, path: str, text: str) -> list[int]:
    """The numbers of all messages of a chat that a search finds, page by page."""
    numbers: list[int] = []
    while True:
        before = {"before": numbers[-1]} if numbers else {}
        page = await client.get_json(f"{path}/messages/search", q=text, limit=PAGE, **before)
        numbers += [message["number"] for message in page]
        if len(page) < PAGE:
            return numbers


def numbers_that_contain(messages: Iterable[Json], text: str) -> list[int]:
    """The same by Python's meaning, newest first."""
    return sorted((one["number"] for one in messages if text in (one["body"] or "").casefold()), reverse=True)


async def assert_nothing_is_lost(load: Load) -> None:
    """What was acknowledged is there, once, under its number; counts are right; a search finds all of it."""
    await applied(load.client)
    assert await load.broken_promises() == []
    for token, reading in (await read_everything(load.client, load.tokens)).items():
        for chat in reading.chats:
            path = f"/applications/{token}/chats/{chat.chat['number']}"
            for text in (f"{SEED}", "🙂"):
                expected = numbers_that_contain(chat.messages, text)

                async def found(path: str = path, text: str = text) -> list[int]:
                    return await numbers_found(load.client, path, text)

                await eventually(found, expected)


@asynccontextmanager
async def loaded(client: Client, name: str) -> AsyncIterator[Load]:
    """A load at work inside the block, judged at its end."""
    load = Load(client, f"{SEED}-{name}", CLIENTS)
    await load.prepare(applications=2)
    async with load.running():
        await asyncio.sleep(LOAD_S)
        before = acknowledged(load)
        assert before > CLIENTS
        yield load
        # It works again: a load that everything is refused to would prove nothing.
        meanwhile = acknowledged(load)
        await asyncio.sleep(LOAD_S)
        assert acknowledged(load) > meanwhile + CLIENTS
    await assert_nothing_is_lost(load)


def acknowledged(load: Load) -> int:
    """How many requests were carried out and answered."""
    return sum(one.acknowledged for one in load.history)


async def new_chat(client: Client) -> ChatAt:
    """A chat with one message, which every process knows."""
    chat = await client.create_chat((await client.create_application())["token"])
    await chat.post("before it happened")
    return chat


# It comes up


def section(document: str, heading: str) -> str:
    """What a document says under a heading."""
    return (ROOT / document).read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def readme_lines(heading: str) -> str:
    """The shell lines under a heading of the README."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", section("README.md", heading), re.MULTILINE | re.DOTALL))


def test_the_lines_of_the_readme_do_what_it_says(project: Project, tmp_path: Path) -> None:
    """The first message is posted as number 1, shown live, and found, by the README's own lines."""
    lines = readme_lines("Your first message").replace("http://127.0.0.1:8080", project.url)
    assert lines.count("curl") >= 5
    # The last line is the search, which lags behind the post; before the first message there is no index either.
    *before, search = lines.strip().splitlines()
    found = f'found=$({search}); test "${{found:0:2}}" = "[{{" && break; sleep 1'
    again = f'for _ in $(seq 30); do {found}; done; echo "$found"'
    script = "\n".join([*before, again, "kill $!"])
    walked = project.shell(script, tmp_path)
    answers = [json.loads(line) for line in walked.splitlines() if line.startswith(("{", "["))]
    chat, posted, found = answers
    assert (chat["number"], chat["title"]) == (1, "Lobby")
    assert (posted["number"], posted["body"]) == (1, "Hello, world")
    assert found == [posted]
    assert "event: message.created" in walked


async def test_swagger_and_the_document_are_served(client: Client) -> None:
    """The page, what it needs, and the OpenAPI document come from the server itself."""
    page = expect(await client.get("/swagger/index.html"), 200)
    assert page.headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:src|href)="(?:\./|/swagger/)?([\w.-]+\.(?:js|css))"', page.text):
        expect(await client.get(f"/swagger/{name}"), 200)
    assert (await client.get_json("/openapi.json"))["openapi"].startswith("3.1")


def test_only_the_api_is_published_and_on_loopback_only(project: Project) -> None:
    """No server can be reached from the host's network."""
    assert project.published() == {"api": f"127.0.0.1:{project.port}->8080/tcp"}


@pytest.mark.parametrize("service", OURS)
def test_our_containers_run_as_no_one_and_write_nowhere(project: Project, service: str) -> None:
    """Not root, no capability, nothing writable but /tmp."""
    assert project.execute(service, "id", "-u").strip() != "0"
    status = project.execute(service, "cat", "/proc/self/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    try_all = "for folder in / /data /opt/chat-system /usr /tmp; do touch $folder/x 2>&- && echo $folder; done"
    assert project.execute(service, "sh", "-c", f"{try_all}; true").split() == ["/tmp"]


def test_redis_keeps_what_it_is_told_and_evicts_nothing(project: Project) -> None:
    """The settings on which the promises rest are in force."""
    wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    for name, value in wanted.items():
        assert project.execute("redis", "redis-cli", "config", "get", name).split() == [name, value]
    assert int(project.execute("redis", "redis-cli", "config", "get", "maxmemory").split()[1]) > 0


async def test_redis_lets_go_of_what_is_applied(project: Project, client: Client) -> None:
    """Its memory bounds what may wait, not what there is: applied entries leave the journal, every one of them."""
    chat = await new_chat(client)
    await chat.request("PATCH", "", json={"title": "Changed"})
    await applied(client)
    lengths = "for key in $(redis-cli --scan --pattern 'chat:*:stream'); do redis-cli xlen $key; done"

    async def kept() -> int:
        return sum(map(int, (await asyncio.to_thread(project.execute, "redis", "sh", "-c", lengths)).split()))

    await eventually(kept, 0)


# Something dies


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_killed_under_load_costs_nothing_that_was_acknowledged(
    project: Project, client: Client, service: str
) -> None:
    """Killed, away for a while, started again: keyed requests are settled, and the checker finds all in order."""
    async with loaded(client, service):
        await asyncio.to_thread(project.kill, service)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(project.up, "--no-recreate", service)


@dataclass(frozen=True)
class Without:
    """What still works while a service is away, by status."""

    posting: int
    searching: int


WITHOUT = {
    "mysql": Without(posting=201, searching=503),
    "redis": Without(posting=503, searching=503),
    "elasticsearch": Without(posting=201, searching=503),
    "worker": Without(posting=201, searching=200),
}


@pytest.mark.parametrize("service", WITHOUT)
async def test_what_does_not_need_a_service_works_without_it(project: Project, client: Client, service: str) -> None:
    """Posting needs Redis alone, search Elasticsearch; what can't be done is 503 and asks to come again."""
    chat = await new_chat(client)
    await applied(client)
    await asyncio.to_thread(project.kill, service)
    try:
        posted = await chat.request("POST", "/messages", json={"body": "while it is away"})
        searched = await chat.request("GET", "/messages/search", params={"q": "before"})
    finally:
        await asyncio.to_thread(project.up, "--no-recreate", service)
    for response, status in ((posted, WITHOUT[service].posting), (searched, WITHOUT[service].searching)):
        expect(response, status)
        assert ("retry-after" in response.headers) == (status == 503)
    await applied(client)
    bodies = ["before it happened"] + ["while it is away"] * (posted.status_code == 201)
    assert [message["body"] for message in await chat.messages()] == bodies


# What an operator does


async def test_an_index_is_made_anew_under_load(project: Project, client: Client) -> None:
    """`reindex` ends well while messages are posted, edited and deleted; searches find all of them afterwards."""
    async with loaded(client, "reindex"):
        await asyncio.to_thread(project.execute, "api", "chat-system", "reindex")
    assert "All is well" in project.execute("api", "chat-system", "check")


async def test_a_backup_is_restored_by_the_lines_of_the_document(
    project: Project, client: Client, tmp_path: Path
) -> None:
    """What was there is there again, keys included; what came later is gone, and its numbers are used again."""
    told = section("docs/operating.md", "Backup of the stack")
    backup, restore = (textwrap.dedent(lines) for lines in re.findall(r"(?:^    .*\n)+", told, re.MULTILINE))
    chat = await new_chat(client)
    keyed = {"json": {"body": "kept"}, "headers": {"Idempotency-Key": "of-the-backup"}}
    kept = expect(await chat.request("POST", "/messages", **keyed), 201).json()
    await applied(client)
    await asyncio.to_thread(project.shell, backup, tmp_path)
    for _ in range(3):
        await chat.post("too late")
    await applied(client)
    printed = await asyncio.to_thread(project.shell, restore, tmp_path)
    assert "All is well" in printed
    assert [message["body"] for message in await chat.messages()] == ["before it happened", "kept"]
    assert expect(await chat.request("POST", "/messages", **keyed), 201).json() == kept
    assert (await chat.post("after it"))["number"] == kept["number"] + 1
    await applied(client)

    async def found() -> list[int]:
        return await numbers_found(client, chat.path, "e")

    await eventually(found, [3, 2, 1])


# It grows, it goes, it comes back


async def test_three_workers_share_the_work_and_one_of_them_may_die(project: Project, client: Client) -> None:
    """Scaled up under load, one container killed, scaled down again: everything is applied, once."""
    async with loaded(client, "workers"):
        await asyncio.to_thread(project.up, "--no-recreate", "--scale", "worker=3", "worker")
        workers = project.containers("worker")
        assert len(workers) == 3
        await asyncio.to_thread(project.kill_container, workers[0])
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(project.up, "--no-recreate", "--scale", "worker=1", "worker")


async def test_several_processes_answer_when_they_are_asked_for(project: Project, client: Client) -> None:
    """CHAT_PROCESSES reaches the API, whose processes survive the death of one of them under load."""
    await asyncio.to_thread(project.up, "api", CHAT_PROCESSES="3")
    async with loaded(client, "processes"):
        # The parent is known by its command, and of its children one is as good as another.
        killed = (
            "import os, signal\n"
            "def command(process): return open(f'/proc/{process}/cmdline').read().split(chr(0))\n"
            "processes = [one for one in os.listdir('/proc') if one.isdigit()]\n"
            "ours = [int(one) for one in processes if 'chat_system.web.process' in command(one)]\n"
            "assert len(ours) == 3, ours\n"
            "os.kill(ours[0], signal.SIGKILL)\n"
        )
        await asyncio.to_thread(project.execute, "api", "python", "-c", killed)
    await asyncio.to_thread(project.up, "api", CHAT_PROCESSES="1")


async def test_data_survives_down_and_up(project: Project) -> None:
    """Containers are removed and made anew; the volumes bring back every message, number and count."""
    async with Client(project.url) as client:
        load = Load(client, f"{SEED}-down", CLIENTS)
        await load.prepare(applications=2)
        async with load.running():
            await asyncio.sleep(LOAD_S)
        # What waits in Redis must survive as well: nothing is waited for here.
        await asyncio.to_thread(project.down)
    await asyncio.to_thread(project.up)
    async with Client(project.url) as client:
        load.client = client
        await assert_nothing_is_lost(load)


def test_the_servers_are_those_that_compose_names(project: Project) -> None:
    """One container of each, healthy: nothing above has left a second one behind, or none."""
    for service in (*SERVERS, *OURS):
        (container,) = project.containers(service)
        asked = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
        assert told.stdout.strip() == "healthy", service
