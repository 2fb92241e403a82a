"""Substring search in Elasticsearch: exact in every script, at any length, answered from the index alone.

A message is one document, whose version is the message's revision: writing is idempotent and takes any order. A
tombstone stays as a document without text, so that no older state can come back and the documents are as many as
the rows.

Not promised: that a search sees what was just applied. The index shows it within a second (`refresh_interval`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from chat_system.errors import ConfigurationError, Unavailable
from chat_system.model import ApplicationId, FoundMessage, Message, raw, rfc3339
from chat_system.ports import Entry, Found
from chat_system.stack.bulk import REVISION_MASK, Target, pieces, room
from chat_system.stack.elasticsearch import (
    MISSING,
    Elasticsearch,
    Failure,
    Missing,
    Refused,
    Starting,
    blames_the_document,
)
from chat_system.stack.indices import Indices
from chat_system.telemetry import INDEXED, log

AT_ONCE = 4
"""Bulk requests of one `apply` under way together: the bodies of some are made while Elasticsearch takes others."""

LEAVE_S = 0.0005
"""How long a request is given to leave."""

BULK_TIMEOUT_S = 60.0
SHARDS_TIMEOUT = "10s"
"""How long Elasticsearch itself waits for a shard that is away before it says so."""

PING_TIMEOUT_S = 2.0
ERASE_PIECE_DOCUMENTS = 10_000
ERASE_TIMEOUT_S = 120.0

GRAM = 3
CONFLICT = 409

_OUTCOMES = "items.*.status,items.*.error.type,items.*.error.reason"


ATTEMPTS = 10
STARTING_S = 0.2
"""A search that comes while a shard is just starting waits for it, for two seconds in all."""

REVISIONS_AT_ONCE = 5_000


class Rejected(Exception):
    """Elasticsearch refuses a document for what is in it."""


class StackSearch:
    """Reads and keeps the index. `require` and `require_chat` raise NotFound for what a caller may not search."""

    def __init__(
        self,
        elasticsearch: Elasticsearch,
        alias: str,
        require: Callable[[ApplicationId], Awaitable[None]],
        require_chat: Callable[[ApplicationId, int], Awaitable[None]],
    ) -> None:
        self.elasticsearch = elasticsearch
        self.alias = alias
        self.indices = Indices(elasticsearch, alias)
        self._require = require
        self._require_chat = require_chat

    async def create(self) -> None:
        """Make the first index where there is none. See `Indices.create`."""
        await self.indices.create()

    async def apply(self, entries: Sequence[Entry]) -> None:
        """See `ports.SearchIndex.apply`.

        Raises:
            Rejected: a document was refused for what is in it; the others of the call may be indexed or not.
        """
        try:
            await self.write(self.alias, entries)
        except Missing:
            log.warning("search index was missing", alias=self.alias)
            await self._make_index()
            # Retried by who called: an index that was made this moment need not be ready.
            raise Unavailable("Elasticsearch is away: the search index had to be made.") from None
        except Refused as error:
            # Not a document, the request: no message is at fault, and none is to be set aside for it.
            raise Unavailable(f"Elasticsearch is away: it refuses to index anything ({error}).") from error
        INDEXED.inc(len(entries))

    async def _make_index(self) -> None:
        try:
            await self.indices.create()
        except (Failure, ConfigurationError) as error:
            raise Unavailable(f"Elasticsearch is away: the search index can't be made ({error}).") from error

    async def write(self, alias: str, entries: Sequence[Entry]) -> None:
        """Index the entries behind an alias.

        Raises:
            Rejected, Unavailable: as `apply` does.
            Missing: there is no such alias.
        """
        free = asyncio.Semaphore(AT_ONCE)
        errors: list[Exception] = []

        async def send(targets: Sequence[Target], body: bytes) -> None:
            try:
                await self._send(alias, targets, body)
            except Exception as error:  # noqa: BLE001 - raised below, when the others have ended
                errors.append(error)
            finally:
                free.release()

        async with asyncio.TaskGroup() as group:
            for targets, body in pieces(entries):
                await free.acquire()
                group.create_task(send(targets, body))
                # Elasticsearch shall work on it while the next body is made.
                await asyncio.sleep(LEAVE_S)
        # While a part is away nothing is anyone's fault yet.
        for error in sorted(errors, key=lambda error: not isinstance(error, Unavailable)):
            raise error

    async def in_chat(
        self, application: ApplicationId, chat: int, folded: str, *, before: int | None, limit: int
    ) -> Sequence[Message]:
        """See `ports.SearchIndex.in_chat`."""
        await self._require_chat(application, chat)
        wanted = [{"term": {"room": room(application, chat)}}, _contains(folded)]
        if before is not None:
            wanted.append({"range": {"number": {"lt": before}}})
        hits = await self._search(application, wanted, limit=limit, sort=[{"number": "desc"}])
        return [Message(*_message(hit)) for hit in hits]

    async def in_application(
        self, application: ApplicationId, folded: str, *, after: Found | None, limit: int
    ) -> Sequence[tuple[Found, FoundMessage]]:
        """See `ports.SearchIndex.in_application`."""
        await self._require(application)
        hits = await self._search(
            application,
            [_of(application), _contains(folded)],
            limit=limit,
            sort=[{"created_at": "desc"}, {"chat": "desc"}, {"number": "desc"}],
            after=None if after is None else [after.created_at, after.chat, after.number],
        )
        return [
            (
                Found(hit["created_at"], hit["chat"], hit["number"]),
                FoundMessage(*_message(hit), chat_number=hit["chat"]),
            )
            for hit in hits
        ]

    async def count(self, application: ApplicationId, *, alias: str | None = None) -> int:
        """How many documents the index shows of an application, tombstones included. Raises Unavailable."""
        try:
            answer = await self.elasticsearch.ask(
                "POST", f"/{alias or self.alias}/_count", {"query": _of(application)}, routing=application
            )
        except Missing:
            return 0
        _whole(answer)
        return int(answer["count"])

    async def revisions(self, application: ApplicationId) -> AsyncIterator[tuple[int, int, int]]:
        """The chat, number and revision of every message that searches see, in this order. Raises Unavailable."""
        wanted = {
            "track_total_hits": False,
            "size": REVISIONS_AT_ONCE,
            "query": _of(application),
            "sort": [{"chat": "asc"}, {"number": "asc"}],
            "version": True,
            "_source": False,
        }
        # Without an index there is nothing to see.
        with suppress(Missing):
            while hits := await self._hits(application, wanted, "hits.hits._version,hits.hits.sort"):
                for hit in hits:
                    yield *hit["sort"], hit["_version"] & REVISION_MASK
                wanted["search_after"] = hits[-1]["sort"]

    async def document(self, application: ApplicationId, chat: int, number: int) -> tuple[int, Any] | None:
        """A message's revision and all that is indexed of it, also before searches see that. Raises Unavailable."""
        try:
            found = await self.elasticsearch.ask(
                "GET", f"/{self.alias}/_doc/{application}:{chat}:{number}", routing=application
            )
        except Missing:
            return None
        return found["_version"] & REVISION_MASK, found["_source"]

    async def refresh(self, *, alias: str | None = None) -> None:
        """Make searches see all that was applied. Raises Unavailable."""
        _whole(await self.elasticsearch.ask("POST", f"/{alias or self.alias}/_refresh", ignore_unavailable=True))

    async def erase(self, application: ApplicationId) -> None:
        """Delete an application's documents, in bounded pieces; also where a reindex has put them.

        What is applied afterwards comes back: call it again when no more can be on its way.

        Raises:
            Unavailable: Elasticsearch is away; what it has deleted stays deleted.
        """
        ask = partial(self.elasticsearch.ask, "POST", timeout_s=ERASE_TIMEOUT_S, ignore_unavailable=True)
        piece = {"query": _of(application), "max_docs": ERASE_PIECE_DOCUMENTS}
        for name in await self.indices.all():
            left = True
            while left:
                # A piece is found by a search, which must see what was just applied and no more what was deleted.
                await ask(f"/{name}/_refresh")
                answer = await ask(f"/{name}/_delete_by_query", piece, routing=application, conflicts="proceed")
                if answer["failures"] or answer["timed_out"]:
                    raise Unavailable("Elasticsearch is away: it could not delete all.")
                left = answer["deleted"] + answer["version_conflicts"] > 0

    async def ping(self) -> None:
        """Raises Unavailable unless a search would be answered."""
        with suppress(Missing):
            await self.elasticsearch.ask(
                "POST",
                f"/{self.alias}/_search",
                {"size": 0, "terminate_after": 1, "track_total_hits": False},
                timeout_s=PING_TIMEOUT_S,
                allow_partial_search_results=False,
            )

    async def _send(self, alias: str, targets: Sequence[Target], body: bytes) -> None:
        answer = await self.elasticsearch.ask(
            "POST",
            f"/{alias}/_bulk",
            body,
            timeout_s=BULK_TIMEOUT_S,
            require_alias=True,
            timeout=SHARDS_TIMEOUT,
            filter_path=_OUTCOMES,
        )
        items = [item["index"] for item in answer["items"]]
        if len(items) != len(targets):
            raise Unavailable("Elasticsearch is away: it answered for some of the documents only.")
        failed = [
            (target, item)
            for target, item in zip(targets, items, strict=True)
            if item["status"] >= 300 and item["status"] != CONFLICT
        ]
        for _, item in failed:
            if item["status"] == MISSING:
                raise Missing(MISSING, item["error"]["type"], item["error"]["reason"])
            if not blames_the_document(item["status"], item["error"]["type"], item["error"]["reason"]):
                raise Unavailable(f"Elasticsearch is away ({item['status']} {item['error']['type']}).")
        for target, item in failed:
            where = "application {}, chat {}, message {}".format(*target.id.split(":"))
            raise Rejected(f"{where}: {item['error']['type']}: {item['error']['reason']}")

    async def _search(
        self,
        application: ApplicationId,
        wanted: list[dict[str, Any]],
        *,
        limit: int,
        sort: list[dict[str, Any]],
        after: list[int] | None = None,
    ) -> list[dict[str, Any]]:
        search: dict[str, Any] = {
            "track_total_hits": False,
            "size": limit,
            "query": {"bool": {"filter": wanted}},
            "sort": sort,
        }
        if after is not None:
            search["search_after"] = after
        for attempt in range(ATTEMPTS):
            try:
                hits = await self._hits(application, search, "hits.hits._source")
            except Missing:
                # Before the first message there is no index; or a reindex has just put another one behind the alias.
                if attempt:
                    break
                continue
            except Starting:
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(STARTING_S)
                continue
            return [hit["_source"] for hit in hits]
        return []

    async def _hits(self, application: ApplicationId, search: dict[str, Any], shown: str) -> list[dict[str, Any]]:
        """What one search finds among an application's documents, or nothing where a part of them is away."""
        answer = await self.elasticsearch.ask(
            "POST",
            f"/{self.alias}/_search",
            search,
            routing=application,
            allow_partial_search_results=False,
            filter_path=shown,
        )
        found: list[dict[str, Any]] = answer.get("hits", {}).get("hits", [])
        return found


def _of(application: ApplicationId) -> dict[str, Any]:
    return {"term": {"_routing": str(application)}}


def _contains(folded: str) -> dict[str, Any]:
    if len(folded) < GRAM:
        return {"term": {"folded": folded}}
    return {"match_phrase": {"folded.three": folded}}


def _message(source: dict[str, Any]) -> tuple[Any, ...]:
    """The fields of a Message, in their order."""
    shown = source["message"]
    created = rfc3339(source["created_at"])
    updated, metadata = shown["updated_at"], shown["metadata"]
    return (
        source["number"],
        shown["sender"],
        shown.get("body", source["folded"]),
        raw(None if metadata is None else metadata.encode()),
        shown["revision"],
        created,
        created if updated is None else rfc3339(updated),
    )


def _whole(answer: Any) -> None:
    """Raise Unavailable when a part of the index did not answer."""
    if answer["_shards"]["failed"]:
        raise Unavailable("Elasticsearch is away: a part of the index does not answer.")
