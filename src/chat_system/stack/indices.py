"""The indices behind the alias: what they look like, how they are made, and what being away means.

An index is named after the alias and numbered (`chat-messages-000001`); searches and writes go to the alias, so
that a reindex can put another index behind it in one step. An index is never changed, only replaced.

Text is folded here, in Python, and Elasticsearch only cuts it into grams of one to three characters: no filter of
its own, no token classes, nothing that knows a language. That is what makes a search exact in every script.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from elastic_transport import JsonSerializer, TransportError
from elasticsearch import ApiError, AsyncElasticsearch, BadRequestError

from chat_system.errors import ConfigurationError, Unavailable

REQUEST_TIMEOUT_S = 10.0
CREATE_ATTEMPTS = 5
MISSING = 404
CONNECTIONS = 32

_GRAMS = {
    "tokenizer": {
        "upto2": {"type": "ngram", "min_gram": 1, "max_gram": 2},
        "three": {"type": "ngram", "min_gram": 3, "max_gram": 3},
    },
    "analyzer": {
        "upto2": {"type": "custom", "tokenizer": "upto2"},
        "three": {"type": "custom", "tokenizer": "three"},
    },
}
_PLACE = {"type": "long"}
_MAPPINGS: dict[str, Any] = {
    # A field that is not named below would be guessed at, and could then never change.
    "dynamic": "strict",
    # Without the routing that wrote it, a document would be a second one in another shard.
    "_routing": {"required": True},
    "properties": {
        # "<application>:<chat>", the filter of a search in one chat; that of an application is `_routing`.
        "room": {"type": "keyword", "doc_values": False},
        "chat": {"type": "long", "index": False},
        "number": _PLACE,
        "created_at": _PLACE,
        "deleted": {"type": "boolean"},
        # Up to two characters are one gram. Longer ones are consecutive grams of three, at consecutive positions.
        "folded": {
            "type": "text",
            "analyzer": "upto2",
            "index_options": "docs",
            "norms": False,
            "fields": {"three": {"type": "text", "analyzer": "three", "index_options": "positions", "norms": False}},
        },
        # What a reader gets to see, kept and never looked into. It has no body where the folded text is the body:
        # dropping `folded` from the source instead made Elasticsearch write every document anew, a third slower.
        "message": {"type": "object", "enabled": False},
    },
}
# Set explicitly, the interval also holds for an index that nobody has searched for half a minute.
_DEFAULTS: dict[str, Any] = {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "1s"}


def connect(url: str) -> AsyncElasticsearch:
    """A client that never retries: who calls knows whether to wait. It connects at its first request.

    Raises:
        ConfigurationError: the address has no port.
    """
    # A line for each request, and one for each that failed: those are raised, and logged by whoever waits.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    try:
        return AsyncElasticsearch(
            url,
            request_timeout=REQUEST_TIMEOUT_S,
            connections_per_node=CONNECTIONS,
            max_retries=0,
            retry_on_timeout=False,
            serializers={_Serializer.mimetype: _Serializer()},
        )
    except ValueError as error:
        raise ConfigurationError("CHAT_ELASTICSEARCH_URL must be an address like http://host:9200.") from error


NO_SHARD = "search_phase_execution_exception"
"""What Elasticsearch says when a shard that it has to ask is not there."""


class _Serializer(JsonSerializer):
    """Answers are read in half the time: a bulk request's is one item for each document."""

    mimetype = "application/vnd.elasticsearch+json"

    def json_loads(self, data: bytes) -> Any:
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error


def blames_the_document(status: int, kind: str) -> bool:
    """Whether an answer is about what was sent. After any other failure the same may succeed."""
    return status in (400, 413) and kind != "index_closed_exception"


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Raise Unavailable for whatever is not the fault of what was sent and not an answer."""
    try:
        yield
    except TransportError as error:
        raise Unavailable("Elasticsearch is away.") from error
    except ApiError as error:
        if error.status_code == MISSING or blames_the_document(error.status_code, error.message):
            raise
        kind = Starting if error.message == NO_SHARD else Unavailable
        raise kind(f"Elasticsearch is away ({error.status_code} {error.message}).") from error


class Starting(Unavailable):
    """A shard that is just being made, or moved, answers no one; in a moment it may."""

    def __init__(self, detail: str = "Elasticsearch is starting.") -> None:
        super().__init__(detail)


class Indices:
    """The numbered indices of one alias."""

    def __init__(self, client: AsyncElasticsearch, alias: str) -> None:
        self.alias = alias
        self.client = client
        self._numbered = re.compile(re.escape(alias) + r"-(\d{6})")

    async def all(self) -> dict[str, bool]:
        """The names of all of them, oldest first, and whether the alias stands for it. Raises Unavailable."""
        async with answering():
            found = await self.client.indices.get_alias(index=f"{self.alias}-*", expand_wildcards="open,closed")
        return {name: self.alias in found[name]["aliases"] for name in sorted(found) if self._numbered.fullmatch(name)}

    async def create(self) -> None:
        """Make the first index and the alias where there is none. Safe when many do it at once.

        Raises:
            ConfigurationError: an index that is not ours has the alias's name.
            Unavailable: Elasticsearch is away.
        """
        for _ in range(CREATE_ATTEMPTS):
            existing = await self.all()
            if any(existing.values()):
                return
            # Who raced us has taken the same name, and brought the alias along in the same step.
            if await self.make(self.after(existing), alias=self.alias):
                return
        raise Unavailable("Elasticsearch is away: the search index comes and goes.")

    async def make(self, name: str, *, alias: str, settings: dict[str, Any] | None = None) -> bool:
        """Make one index with an alias of its own; False when the name is taken."""
        try:
            async with answering():
                await self.client.indices.create(
                    index=name,
                    aliases={alias: {}},
                    mappings=_MAPPINGS,
                    settings={**_DEFAULTS, **(settings or {}), "analysis": _GRAMS},
                )
        except BadRequestError as error:
            if error.message == "resource_already_exists_exception":
                return False
            if error.message == "invalid_alias_name_exception":
                raise ConfigurationError(
                    f"Elasticsearch has an index named {alias}: move it away, or set CHAT_ELASTICSEARCH_INDEX."
                ) from error
            raise
        return True

    def after(self, existing: dict[str, bool]) -> str:
        """The name that follows the highest number."""
        last = max((int(name[-6:]) for name in existing), default=0)
        return f"{self.alias}-{last + 1:06d}"
