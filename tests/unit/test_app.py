"""App: what becomes of a defect of ours, met by a request that a connection has read and a house serves."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import structlog

from chat_system import telemetry
from chat_system.model import Message
from chat_system.settings import Settings
from chat_system.web import app
from chat_system.web.app import App
from chat_system.web.connection import Connections
from chat_system.wiring import House, open_house
from tests.api.problems import expect_problem

SECRET = "what the defect knows"
FAILED = re.compile(r'^chat_requests_total\{operation="readMessage",status="500"\} (\S+)$', re.MULTILINE)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """An embedded house, its projections not running."""
    async with open_house(Settings(sqlite_path=str(tmp_path / "chat.sqlite3"))) as opened:
        yield opened


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that house's application, which answers one request at a time."""
    connections = Connections(App(house, Settings(max_in_flight=1)))
    server = await asyncio.get_running_loop().create_server(connections.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as opened:
        yield opened
    server.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the process logs as JSON, as it does when it serves; set up for this test alone."""
    said = io.StringIO()
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", said)
        telemetry.configure_logging("warning", "json")
    # A logger keeps the set-up of its first use: this one's is not to be everyone's.
    monkeypatch.setattr(app, "log", structlog.get_logger())
    yield said
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)


async def failures(client: httpx.AsyncClient) -> float:
    """How many 500s the metrics count, of all tests of this process."""
    found = FAILED.search((await client.get("/metrics")).text)
    return float(found[1]) if found else 0.0


async def test_a_defect_is_answered_without_detail_and_the_log_tells_under_the_request_id(
    house: House, client: httpx.AsyncClient, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 as a problem, a traceback in the log, one more in the metric; and the place in flight is free again."""
    token = (await client.post("/applications", json={"name": "x"})).json()["token"]
    chat = f"/applications/{token}/chats/1"
    for path, payload in ((f"/chats/{token}", {}), (f"{chat}/messages", {"body": "x"})):
        assert (await client.post(path, json=payload)).status_code == 201

    before = await failures(client)

    async def broken(*_: object) -> Message:
        raise ZeroDivisionError(SECRET)

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "message", broken)
        made = await client.get(f"{chat}/messages/1")
        given = await client.get(f"{chat}/messages/1", headers={"X-Request-ID": "given"})
    assert given.headers["x-request-id"] == "given"
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    for answer, line in zip((made, given), lines, strict=True):
        problem = expect_problem(answer, 500, "internal")
        assert (line["level"], line["request_id"]) == ("error", problem["request_id"])
        assert line["operation"] == "readMessage"
        assert line["exception"].startswith("Traceback")
        assert "in broken" in line["exception"]
        assert line["exception"].endswith(f"ZeroDivisionError: {SECRET}")
        for inside in (SECRET, "ZeroDivision", "Traceback", token):
            assert inside not in answer.text
        assert token not in json.dumps(line)
    assert (await client.get(f"{chat}/messages/1")).json()["body"] == "x"
    assert await failures(client) == before + 2
