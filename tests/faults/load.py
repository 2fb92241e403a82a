"""A mixed load that logs what it asks and what it is answered, for the checker.

Several clients at once create chats, post, post batches, edit, delete and read; with and without idempotency
keys; they repeat keys that were answered, keys that were not, and keys whose first request is still under
way; now and then they send what must be refused. A request without an answer goes into the log as such, and
if it had a key, into the queue of those that are sent again.

    load = Load(client, seed="1", clients=8)
    await load.prepare(applications=2)
    async with load.running():      # clients at work; `pause` and `resume` while the server is away
        ...
    assert await load.broken_promises() == []

The seed fixes every choice, not the order in which the clients get their turns.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from tests.checker import check
from tests.client import Client
from tests.faults.history import CREATIONS, PAGE, Ask, Exchange, Json
from tests.faults.reading import read_everything

REMEMBERED = 200
BATCH_SIZES = (1, 2, 3, 10, 40)
BODIES = ("short", "a longer body, " * 8, "ünïcödé ß 🙂 \u2028", "x" * 3000)
KEY_PREFIX = "only-for-the-server-"
"""What every idempotency key begins with, and nothing else does: none may be seen where it does not belong."""
BACKOFF_S = 0.02
"""How long a client waits after a refusal for the time being, as after none: the machine is its server's, too."""
SETTLE_TIMEOUT_S = 30.0
"""How long a key that was not answered may go on being refused when the server is there."""


@dataclass
class Known:
    """What the clients know about one application because it was acknowledged."""

    token: str
    chats: list[int] = field(default_factory=list)
    messages: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    keyed: deque[Exchange] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    unanswered: list[Exchange] = field(default_factory=list)


class Load:
    """Clients of one server, their common knowledge and their log.

    `surprises` are answers to requests that must be refused, and were not, or otherwise; and failed searches.
    """

    def __init__(self, client: Client, seed: str, clients: int) -> None:
        self.client = client
        self.history: list[Exchange] = []
        self.surprises: list[str] = []
        self.applications: list[Known] = []
        self._seed = seed
        self._clients = clients
        self._serial = itertools.count()
        self._serving = asyncio.Event()
        self._ending = False
        self._under_way = 0
        self._idle = asyncio.Event()

    @property
    def tokens(self) -> list[str]:
        """The applications that this load works in."""
        return [known.token for known in self.applications]

    async def prepare(self, applications: int) -> None:
        """Create the applications, each with one chat; the server must be there."""
        for _ in range(applications):
            known = Known((await self.client.create_application("Under load"))["token"])
            self.applications.append(known)
            opened = await self._send(known, self._asked(random.Random(self._seed), known, Ask.CHAT, keyed=False))
            assert opened.acknowledged, str(opened)

    def pause(self) -> None:
        """No new requests from now on."""
        self._serving.clear()

    def resume(self) -> None:
        """The server is there (again)."""
        self._serving.set()

    async def quiet(self) -> None:
        """Wait until no request is under way."""
        if self._under_way:
            self._idle.clear()
            await self._idle.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Clients at work inside the block; at its end they finish the request that they are at."""
        self._ending = False
        tasks = [asyncio.create_task(self._work(number)) for number in range(self._clients)]
        self.resume()
        try:
            yield
        finally:
            self._ending = True
            self.resume()
            await asyncio.gather(*tasks)

    async def broken_promises(self) -> list[str]:
        """Settle, read everything there is, and let the checker judge. The server must be there."""
        await self.settle()
        violations = check(self.history, await read_everything(self.client, self.tokens))
        return [*self.surprises, *(str(one) for one in violations)]

    async def serves(self) -> bool:
        """Whether a message that is posted now is acknowledged and read, and a search answered."""
        known = self.applications[0]
        mark = self._mark()
        asked = Exchange(Ask.POST, known.token, 0.0, chat=known.chats[0], payload={"sender": mark, "body": mark})
        done = await self._send(known, asked)
        if not done.acknowledged:
            return False
        target = done.answer["number"]
        read = await self._send(known, Exchange(Ask.READ, known.token, 0.0, chat=known.chats[0], target=target))
        if not read.acknowledged:
            return False
        path = f"/applications/{known.token}/chats/{known.chats[0]}/messages/search"
        try:
            searched = await self.client.get(path, params={"q": mark})
        except httpx.TransportError:
            return False
        # It is not in the log, so the checker does not see it.
        if searched.status_code not in (200, 503):
            self.surprises.append(f"a search was answered {searched.status_code}: {searched.text}")
        return searched.status_code == 200

    async def settle(self) -> None:
        """Send every unanswered key again until it is answered; then no keyed request is left in doubt."""
        for known in self.applications:
            while left := len(known.unanswered):
                deadline = time.monotonic() + SETTLE_TIMEOUT_S
                # One that is refused once more is among them again.
                while len(known.unanswered) == left:
                    assert time.monotonic() < deadline, f"not answered in time: {known.unanswered[-1]}"
                    await self._again(known, known.unanswered.pop())

    async def _work(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        while not self._ending:
            await self._serving.wait()
            known = chance.choices(self.applications, range(len(self.applications), 0, -1))[0]
            self._under_way += 1
            try:
                await self._step(chance, known)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

    async def _step(self, chance: random.Random, known: Known) -> None:
        if known.unanswered and chance.random() < 0.3:
            await self._again(known, known.unanswered.pop(chance.randrange(len(known.unanswered))))
            return
        steps: list[tuple[float, Callable[[random.Random, Known], Awaitable[None]]]] = [
            (40, self._post),
            (10, self._batch),
            (12, self._edit),
            (6, self._delete),
            (6, self._open_chat),
            (8, self._read),
            (6, self._twins),
            (6, self._repeat),
            (3, self._refused),
            (3, self._mismatch),
        ]
        await chance.choices([step for _, step in steps], [weight for weight, _ in steps])[0](chance, known)

    def _mark(self) -> str:
        return f"{self._seed}-{next(self._serial)}"

    def _item(self, chance: random.Random) -> Json:
        mark = self._mark()
        item: Json = {"sender": mark, "body": f"{mark} {chance.choice(BODIES)}"}
        return item | {"metadata": {"n": mark}} if chance.random() < 0.3 else item

    def _chat(self, chance: random.Random, known: Known) -> int:
        # Half of everything goes to the first chat: contention is where numbers go wrong.
        return known.chats[0] if chance.random() < 0.5 else chance.choice(known.chats)

    def _payload(self, chance: random.Random, ask: Ask) -> Json:
        if ask is Ask.CHAT:
            return {"title": self._mark()}
        if ask is Ask.POST:
            return self._item(chance)
        return {"messages": [self._item(chance) for _ in range(chance.choice(BATCH_SIZES))]}

    def _asked(self, chance: random.Random, known: Known, ask: Ask, *, keyed: bool) -> Exchange:
        chat = None if ask is Ask.CHAT else self._chat(chance, known)
        key = f"{KEY_PREFIX}{self._mark()}" if keyed else None
        return Exchange(ask, known.token, 0.0, chat=chat, payload=self._payload(chance, ask), key=key)

    async def _create(self, chance: random.Random, known: Known, ask: Ask, *, keyed: bool) -> None:
        await self._send(known, self._asked(chance, known, ask, keyed=keyed))

    async def _post(self, chance: random.Random, known: Known) -> None:
        await self._create(chance, known, Ask.POST, keyed=chance.random() < 0.5)

    async def _batch(self, chance: random.Random, known: Known) -> None:
        await self._create(chance, known, Ask.BATCH, keyed=chance.random() < 0.5)

    async def _open_chat(self, chance: random.Random, known: Known) -> None:
        await self._create(chance, known, Ask.CHAT, keyed=chance.random() < 0.5)

    async def _edit(self, chance: random.Random, known: Known) -> None:
        if not known.messages:
            return
        chat, target = chance.choice(known.messages)
        mark = self._mark()
        payload = chance.choice([{"body": f"edited {mark}"}, {"metadata": {"edited": mark}}])
        await self._send(known, Exchange(Ask.EDIT, known.token, 0.0, chat=chat, target=target, payload=payload))

    async def _delete(self, chance: random.Random, known: Known) -> None:
        if known.messages:
            chat, target = chance.choice(known.messages)
            await self._send(known, Exchange(Ask.DELETE, known.token, 0.0, chat=chat, target=target))

    async def _read(self, chance: random.Random, known: Known) -> None:
        chat, target = self._chat(chance, known), None
        if known.messages and chance.random() < 0.5:
            chat, target = chance.choice(known.messages)
        await self._send(known, Exchange(Ask.READ, known.token, 0.0, chat=chat, target=target))

    async def _twins(self, chance: random.Random, known: Known) -> None:
        """The same request twice at the same time."""
        asked = self._asked(chance, known, chance.choice([Ask.POST, Ask.BATCH, Ask.CHAT]), keyed=True)
        await asyncio.gather(self._send(known, asked), self._send(known, asked))

    async def _repeat(self, chance: random.Random, known: Known) -> None:
        """A key that was answered, once more."""
        if known.keyed:
            await self._again(known, chance.choice(known.keyed))

    async def _refused(self, chance: random.Random, known: Known) -> None:
        """An empty body: 400, and no number is used up."""
        payload = {"sender": self._mark(), "body": ""}
        asked = Exchange(Ask.POST, known.token, 0.0, chat=self._chat(chance, known), payload=payload)
        self._expect(400, await self._send(known, asked))

    async def _mismatch(self, chance: random.Random, known: Known) -> None:
        """A key that was answered, with another payload: 422, and nothing happens."""
        if known.keyed:
            other = chance.choice(known.keyed)
            self._expect(422, await self._send(known, replace(other, payload=self._payload(chance, other.ask))))

    def _expect(self, status: int, done: Exchange) -> None:
        if not done.unknown and done.status != status:
            self.surprises.append(f"wanted {status}: {done}")

    async def _again(self, known: Known, one: Exchange) -> None:
        await self._send(known, one)

    async def _send(self, known: Known, asked: Exchange) -> Exchange:
        """Send one request, log it, and learn from its answer."""
        asked = replace(asked.without_answer(), sent_at=time.monotonic())
        try:
            response = await self._request(asked)
            done = _answered(asked, response)
        except httpx.ConnectError:
            # Nothing was sent, so there is nothing to log.
            done = asked
            await asyncio.sleep(BACKOFF_S)
        except httpx.TransportError:
            done = asked
            self.history.append(done)
            await asyncio.sleep(BACKOFF_S)
        else:
            self.history.append(done)
            if done.unknown:
                await asyncio.sleep(BACKOFF_S)
        self._learn(known, done)
        return done

    async def _request(self, asked: Exchange) -> httpx.Response:
        base = f"/applications/{asked.application}/chats"
        headers = {} if asked.key is None else {"Idempotency-Key": asked.key}
        if asked.ask is Ask.CHAT:
            return await self.client.post(base, json=asked.payload, headers=headers)
        messages = f"{base}/{asked.chat}/messages"
        if asked.ask is Ask.POST:
            return await self.client.post(messages, json=asked.payload, headers=headers)
        if asked.ask is Ask.BATCH:
            return await self.client.post(f"{messages}/batch", json=asked.payload, headers=headers)
        if asked.ask is Ask.READ and asked.target is None:
            return await self.client.get(messages, params={"order": "desc", "limit": PAGE})
        method = {Ask.EDIT: "PATCH", Ask.DELETE: "DELETE", Ask.READ: "GET"}[asked.ask]
        options: dict[str, Any] = {"json": asked.payload} if asked.ask is Ask.EDIT else {}
        return await self.client.request(method, f"{messages}/{asked.target}", **options)

    def _learn(self, known: Known, done: Exchange) -> None:
        if done.ask not in CREATIONS:
            return
        if done.unknown and done.key is not None:
            known.unanswered.append(done)
        if not done.acknowledged:
            return
        if done.key is not None:
            known.keyed.append(done)
        if done.ask is Ask.CHAT:
            if done.answer["number"] not in known.chats:
                known.chats.append(done.answer["number"])
        elif done.chat is not None:
            known.messages.extend((done.chat, answer["number"]) for answer in done.answers)


def _answered(asked: Exchange, response: httpx.Response) -> Exchange:
    answered_at = time.monotonic()
    ok = response.status_code < 300 and response.status_code != 204
    answer = response.json() if ok else None
    if ok and asked.ask is Ask.READ and asked.target is not None:
        answer = [answer]
    replayed = response.headers.get("idempotency-replayed") == "true"
    done = replace(asked, answered_at=answered_at, status=response.status_code, answer=answer)
    return replace(done, replayed=replayed)
