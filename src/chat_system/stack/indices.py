"""The indices behind the alias: what they look like, and how they are made.

An index is named after the alias and numbered (`chat-messages-000001`); searches and writes go to the alias, so
that a reindex can put another index behind it in one step. An index is never changed, only replaced.

Text is folded here, in Python, and Elasticsearch only cuts it into grams of one to three characters: no filter of
its own, no token classes, nothing that knows a language. That is what makes a search exact in every script.
"""

from __future__ import annotations

import re
from typing import Any

from chat_system.errors import ConfigurationError, Unavailable
from chat_system.stack.elasticsearch import Elasticsearch, Refused

CREATE_ATTEMPTS = 5

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


class Indices:
    """The numbered indices of one alias."""

    def __init__(self, elasticsearch: Elasticsearch, alias: str) -> None:
        self.alias = alias
        self.elasticsearch = elasticsearch
        self._numbered = re.compile(re.escape(alias) + r"-(\d{6})")

    async def all(self) -> dict[str, bool]:
        """The names of all of them, oldest first, and whether the alias stands for it. Raises Unavailable."""
        found = await self.elasticsearch.ask("GET", f"/{self.alias}-*/_alias", expand_wildcards="open,closed")
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
        made = {
            "aliases": {alias: {}},
            "mappings": _MAPPINGS,
            "settings": {**_DEFAULTS, **(settings or {}), "analysis": _GRAMS},
        }
        try:
            await self.elasticsearch.ask("PUT", f"/{name}", made)
        except Refused as error:
            if error.kind == "resource_already_exists_exception":
                return False
            if error.kind == "invalid_alias_name_exception":
                raise ConfigurationError(
                    f"Elasticsearch has an index named {alias}: move it away, or set CHAT_ELASTICSEARCH_INDEX."
                ) from error
            raise
        return True

    def after(self, existing: dict[str, bool]) -> str:
        """The name that follows the highest number."""
        last = max((int(name[-6:]) for name in existing), default=0)
        return f"{self.alias}-{last + 1:06d}"
