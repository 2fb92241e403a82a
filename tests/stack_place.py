"""Where the stack houses stand that tests open in their own process, one after another."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from chat_system.settings import Settings
from chat_system.wiring import migrate
from tests.servers.shared import run_servers
from tests.servers.storage import Storage


class StackPlace:
    """Where this process's stack houses stand: one database and one index for all, emptied for each new folder.

    Making a database, its tables and an index takes longer than most tests. Identities go on counting, so what an
    index still holds of an earlier folder belongs to applications that are no more.
    """

    FILE = "redis-prefix"

    def __init__(self) -> None:
        self.storage = Storage(run_servers().addresses(), "contract")
        self.storage.create_database()
        self._folders = 0
        self._redis_url = self.storage.addresses.redis_url
        migrate(self._settings(""))

    def settings(self, folder: Path, redis_url: str | None = None) -> Settings:
        """Those of the house in this folder: the latest one, or new; on another Redis, if one is named."""
        file = folder / self.FILE
        if not file.exists():
            self.storage.drop_keys(self._prefix, self._redis_url)
            self.storage.empty_tables()
            self._redis_url = redis_url or self.storage.addresses.redis_url
            self._folders += 1
            file.write_text(self._prefix)
        assert file.read_text() == self._prefix, "another folder was opened since: its house has taken this one's place"
        return self._settings(self._prefix)

    @property
    def _prefix(self) -> str:
        return f"{self.storage.name}-{self._folders}-"

    def _settings(self, prefix: str) -> Settings:
        return Settings(
            mode="stack",
            mysql_url=self.storage.mysql_url,
            redis_url=self._redis_url,
            redis_prefix=prefix,
            elasticsearch_url=self.storage.addresses.elasticsearch_url,
            elasticsearch_index=self.storage.name,
        )


stack_place = cache(StackPlace)
"""The one of this process. It is made when a stack house is first opened."""


def leave_stack_place() -> None:
    """Remove from the servers what the houses left there, if there were any."""
    if stack_place.cache_info().currsize:
        stack_place().storage.drop()
