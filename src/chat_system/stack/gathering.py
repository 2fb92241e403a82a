"""Calls of one script, gathered: what comes while a round is under way goes together into the next.

The calls of a partition become one call of the script, and those of all partitions that a Redis has go out in one
piece: so a hundred clients share one round trip, and one fsync. What is too much for one round waits for the one after.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from chat_system.errors import Unavailable
from chat_system.stack.connection import Answered, Line
from chat_system.stack.redis import TIMEOUT_S, Redis, Script, unavailable
from chat_system.telemetry import log

ROUND_MAX_REQUESTS = 2_000
ROUND_MAX_BYTES = 4 * 1024 * 1024
"""Of one round, unless a single request is larger: Redis answers nobody else meanwhile."""

_MOVED = ("MOVED", "ASK")
"""A Redis Cluster says so of keys that are elsewhere; nothing was carried out."""

_Asked = list[tuple[Any, asyncio.Future[Any]]]


class Gathering:
    """The calls of one script, by partition; each Redis of a cluster has rounds of its own.

    `encode` makes the script's arguments of a partition's requests, `decode` their answers of its answer and the
    requests; `weigh` says about how many bytes a request costs Redis. `observe` is told of each round how many requests
    it had, and how many seconds it took.
    """

    def __init__(
        self,
        redis: Redis,
        script: Script,
        encode: Callable[[Sequence[Any]], Sequence[Any]],
        decode: Callable[[bytes, Sequence[Any]], Sequence[Any]],
        *,
        weigh: Callable[[Any], int] = lambda _: 0,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self.script = script
        self.encode = encode
        self.decode = decode
        self.weigh = weigh
        self.observe = observe
        self.calls = _Calls(redis, script)
        self._rounds: dict[str | int, _Rounds] = {}

    def ask(self, partition: int, request: Any) -> asyncio.Future[Any]:
        """The answer to one request, in some time. If the caller leaves, the request stands all the same."""
        # Of a cluster, one Redis that keeps silent holds up nobody who asks another.
        where = self.calls.where(partition)
        rounds = self._rounds.get(where)
        if rounds is None:
            rounds = self._rounds[where] = _Rounds(self)
        return rounds.ask(partition, request)

    async def close(self) -> None:
        """Wait for what is under way."""
        for rounds in tuple(self._rounds.values()):
            await rounds.end()


class _Rounds:
    """One round after the other, to one Redis."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._waiting: deque[tuple[int, Any, asyncio.Future[Any]]] = deque()
        # Of the round that is under way: how many calls and requests without an answer, and since when.
        self._calls_left = 0
        self._requests = 0
        self._started = 0.0
        self._is_due = False
        self._none_left = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ask(self, partition: int, request: Any) -> asyncio.Future[Any]:
        """See `Gathering.ask`."""
        future = self._loop.create_future()
        self._waiting.append((partition, request, future))
        if not self._calls_left and not self._is_due:
            self._is_due = True
            # Behind all that came in the same turn of the loop: it goes along.
            self._loop.call_soon(self._begin)
        return future

    async def end(self) -> None:
        """Wait until nothing is left."""
        while self._waiting or self._calls_left:
            self._none_left.clear()
            await self._none_left.wait()

    def _begin(self) -> None:
        """Begin a round."""
        self._is_due = False
        asked = self._next_round()
        self._calls_left = len(asked)
        self._requests = sum(map(len, asked.values()))
        self._started = self._loop.time()
        for partition, requests in asked.items():
            answered = partial(self._answered, requests)
            try:
                arguments = self._gathering.encode([request for request, _ in requests])
            except Exception as defect:  # noqa: BLE001 - whatever it is, those who wait must be told
                self._loop.call_soon(answered, defect)
            else:
                self._gathering.calls.call(partition, arguments, answered)
        self._gathering.calls.flush()

    def _next_round(self) -> dict[int, _Asked]:
        """By partition what is asked next, in the order in which it came."""
        asked: dict[int, _Asked] = {}
        weigh = self._gathering.weigh
        weight = 0
        for _ in range(min(len(self._waiting), ROUND_MAX_REQUESTS)):
            partition, request, future = self._waiting[0]
            weight += weigh(request)
            if asked and weight > ROUND_MAX_BYTES:
                break
            self._waiting.popleft()
            asked.setdefault(partition, []).append((request, future))
        return asked

    def _answered(self, asked: _Asked, answer: Any) -> None:
        self._calls_left -= 1
        if not self._calls_left:
            self._end()
        try:
            if isinstance(answer, Unavailable):
                raise answer
            if isinstance(answer, Exception):
                raise unavailable(answer) from answer
            answers = self._gathering.decode(answer, [request for request, _ in asked])
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must be told
            self._refuse(asked, error)
        else:
            for (_, future), one in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(one)

    def _end(self) -> None:
        if (observe := self._gathering.observe) is not None:
            observe(self._requests, self._loop.time() - self._started)
        if self._waiting:
            # Redis begins with these while those who were answered go on.
            self._begin()
        else:
            self._none_left.set()

    def _refuse(self, asked: _Asked, error: Exception) -> None:
        if not isinstance(error, Unavailable):
            log.error("script failed", script=self._gathering.script.name, exc_info=error)
        for _, future in asked:
            if not future.done():
                future.set_exception(_own(error))


class _Calls:
    """Calls of a script, over a line to each Redis that is asked: there are several in a cluster."""

    def __init__(self, redis: Redis, script: Script) -> None:
        self._redis = redis
        self._script = script
        self._lines: dict[str, Line] = {}
        self._nodes: dict[int, str] = {}
        """Which Redis has a partition, by what was seen last."""
        self._loop = asyncio.get_running_loop()
        # redis-py's calls, which find out where in a cluster everything is.
        self._finding: set[asyncio.Task[None]] = set()
        self._is_lost = redis.is_cluster
        redis.on_close(self._close)

    def where(self, partition: int) -> str | int:
        """What has the partition: a Redis, or while that must be found out the partition itself."""
        return partition if self._is_lost else self._node(partition)

    def call(self, partition: int, arguments: Sequence[Any], answered: Answered) -> None:
        """Ask with the next `flush`."""
        if self._is_lost:
            self._find(partition, arguments, answered)
            return
        line = self._line(partition)
        meta = self._redis.meta(partition)

        def check(answer: Any) -> None:
            if isinstance(answer, NoScriptError):
                # After a restart. What Redis does not know it has not carried out.
                line.ask(("EVAL", self._script.text, 1, meta, *arguments), answered)
                line.flush()
            elif self._redis.is_cluster and isinstance(answer, Exception) and self._has_moved(answer):
                self._find(partition, arguments, answered)
            else:
                answered(answer)

        line.ask(("EVALSHA", self._script.digest, 1, meta, *arguments), check)

    def flush(self) -> None:
        """Send what was asked."""
        for line in self._lines.values():
            line.flush()

    def _close(self) -> None:
        for line in self._lines.values():
            line.close()

    def _node(self, partition: int) -> str:
        name = self._nodes.get(partition)
        if name is None:
            name = self._nodes[partition] = self._redis.node(partition)
        return name

    def _line(self, partition: int) -> Line:
        name = self._node(partition)
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(partial(self._redis.open, name), TIMEOUT_S)
        return line

    def _has_moved(self, failure: Exception) -> bool:
        """Whether it may be asked again, elsewhere. Whatever else a cluster's node says, look again where it is."""
        has_moved = isinstance(failure, ResponseError) and str(failure).startswith(_MOVED)
        if has_moved or not isinstance(failure, ResponseError):
            self._is_lost = True
            self._nodes.clear()
        return has_moved

    def _find(self, partition: int, arguments: Sequence[Any], answered: Answered) -> None:
        task = self._loop.create_task(self._ask_apart(partition, arguments, answered))
        self._finding.add(task)
        task.add_done_callback(self._finding.discard)

    async def _ask_apart(self, partition: int, arguments: Sequence[Any], answered: Answered) -> None:
        answer: Any
        try:
            [answer] = await self._redis.call(self._script, [(partition, arguments)])
            self._is_lost = False
        except Exception as error:  # noqa: BLE001 - those who wait must be told
            answer = error
        answered(answer)


def _own(error: Exception) -> Exception:
    # Each waits in a task of its own: one exception raised in many would mix up their tracebacks.
    if isinstance(error, Unavailable):
        own = Unavailable(error.detail)
        own.__cause__ = error.__cause__
        return own
    return error
