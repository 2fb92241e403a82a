"""The ports: what a house must be able to do. The docstrings are the contracts.

The core accepts facts through `Journal`, reads them through `Store` and `SearchIndex`, and is told by `Feed`
when to look again. Each house (`embedded/`, `stack/`) implements all four, and one conformance suite
(`tests/contract`) runs against both.

Every tenant-scoped method takes the application first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from msgspec import Struct

from chat_system.model import (
    Application,
    ApplicationId,
    Change,
    Chat,
    Fact,
    FoundMessage,
    Message,
    MessageChanged,
    Once,
    Receipt,
    Window,
)

Projection = Literal["store", "search"]
"""A reader of the journal: what it applies the facts to."""


class Entry(Struct, frozen=True, gc=False):
    """One recorded fact on its way to a projection, and where in the journal it stands."""

    position: str
    application: ApplicationId
    chat: int
    fact: Fact

    @property
    def message(self) -> MessageChanged:
        """The fact, where it is known to be a message with its state."""
        assert isinstance(self.fact, MessageChanged)  # noqa: S101 - a projection was handed what is not its own
        return self.fact


class Backlog(Struct, frozen=True):
    """How far a projection is behind: entries, the age in seconds of the oldest, and how many were set aside."""

    entries: int
    lag_s: float
    set_aside: int


class SetAside(Struct, frozen=True):
    """A fact that could not be applied: where in the journal it stood, what it is about, and its error."""

    projection: Projection
    position: str
    about: str
    error: str


class Found(Struct, frozen=True):
    """Where a search over an application may go on: exclusive, newest first."""

    created_at: int
    chat: int
    number: int


class Discrepancy(Struct, frozen=True):
    """Something that `check` found to be wrong: where, and what."""

    where: str
    what: str


class Source(Protocol):
    """Where a projector gets what it applies: a journal, or a part of one."""

    async def read(self, projection: Projection, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries that the projection has not acknowledged; waits for nothing.

        Those of a chat come by number, and chats in an order in which none starves. The search projection reads
        messages only, or only their names where the index lies beside them. Of a message that changed several times,
        one entry with its latest state is enough. Entries that were set aside are left out.
        """

    async def acknowledge(self, projection: Projection, entries: Sequence[Entry]) -> None:
        """The projection has applied these durably: forget them, unless they changed since they were read."""

    async def set_aside(self, projection: Projection, entry: Entry, error: str) -> None:
        """Keep an entry that can't be applied out of the way, with its error, until an operator retries it."""

    async def backlog(self, projection: Projection) -> Backlog:
        """How far the projection is behind."""

    async def wait(self, projection: Projection) -> None:
        """Return when there is something that is worth reading now. A hint: it may return for nothing.

        A house may hold back what no reader would notice, for a bounded time and a bounded number of entries.
        """


class Journal(Source, Protocol):
    """Accepts facts: allots numbers and revisions, and records, in one atomic and durable step."""

    def append(self, application: ApplicationId, change: Change, *, once: Once | None = None) -> Awaitable[Receipt]:
        """Record a change of one chat and return what it was allotted.

        When this returns, the change survives the crash of any process and the loss of power, and every
        `Store` read shows it. Numbers start at 1 and have no gaps; so do a chat's revisions. If one call
        returned before another began, its number is the smaller. A batch is all or none. Repeating `once`
        returns the first receipt with `replayed` set and records nothing, also while the first call runs.

        Raises:
            NotFound: the chat or message is unknown to this application.
            Conflict: an edit of a tombstone.
            Stale: an edit whose `based_on` is not the message's latest revision.
            IdempotencyMismatch: `once` was used with another fingerprint.
            Unavailable: nothing was recorded, or we cannot tell. Retry only with `once`.
        """

    async def receipt(self, application: ApplicationId, once: Once) -> Receipt | None:
        """What the first call with the key of `once` was allotted, whatever its payload; None if there was none."""

    async def asides(self) -> Sequence[SetAside]:
        """What was set aside."""

    async def retry(self, projection: Projection) -> int:
        """Give what was set aside to the projection again; how many entries that were."""

    async def ping(self) -> None:
        """Raises Unavailable, naming what is away that changes need."""


class Store(Protocol):
    """Reads what was accepted, and keeps the applications."""

    async def create_application(self, token: str, name: str, *, once: Once | None = None) -> tuple[Application, bool]:
        """Create an application, durably. With a repeated `once`, return the first one and True.

        Raises:
            IdempotencyMismatch: `once` was used with another fingerprint.
            Unavailable: nothing was recorded, or we cannot tell.
        """

    async def resolve(self, token: str) -> ApplicationId | None:
        """The application that a token opens."""

    def recall(self, token: str) -> ApplicationId | None:
        """The same from memory, for every request asks. None says nothing: then `resolve` it."""

    async def application(self, application: ApplicationId) -> Application:
        """Raises NotFound when it was erased."""

    async def applications(self, window: ApplicationWindow) -> Sequence[Application]:
        """A page of all applications, oldest first."""

    async def rename_application(self, application: ApplicationId, name: str) -> Application:
        """Raises NotFound when it was erased."""

    async def erase_application(self, application: ApplicationId) -> None:
        """Hide the application and all that is in it, durably and at once; `sweep` removes the rest.

        Raises:
            NotFound: it was erased already.
        """

    async def chat(self, application: ApplicationId, chat: int) -> Chat:
        """Raises NotFound when it is unknown to this application."""

    async def chats(self, application: ApplicationId, window: Window) -> Sequence[Chat]:
        """A page of chats by number. Raises NotFound when the application was erased."""

    async def message(self, application: ApplicationId, chat: int, number: int) -> Message:
        """Raises NotFound when it is unknown to this application."""

    async def messages(self, application: ApplicationId, chat: int, window: Window) -> Sequence[Message]:
        """A page of messages by number, tombstones included. Costs the same at any depth.

        Raises:
            NotFound: the chat is unknown to this application.
        """

    async def changes(self, application: ApplicationId, chat: int, after: int, limit: int) -> Sequence[Message]:
        """The messages that changed after the revision, each in its latest state, by revision.

        Raises:
            NotFound: the chat is unknown to this application.
        """

    async def revision(self, application: ApplicationId, chat: int) -> int:
        """The chat's latest revision; unlike `Chat.revision` it never lags.

        Raises:
            NotFound: the chat is unknown to this application.
        """

    def all_chats(self, application: ApplicationId) -> AsyncIterator[Chat]:
        """Every chat of one application by number; memory stays bounded."""

    async def ping(self) -> None:
        """Raises Unavailable, naming what is away that reads need."""

    async def sweep(self) -> bool:
        """Remove a bounded piece of what was erased or has expired; True when more remains."""

    async def verify(self) -> Sequence[Discrepancy]:
        """Look for gaps and duplicates in numbers and revisions, and for counts that are not the rows' number."""

    async def recount(self) -> Sequence[Discrepancy]:
        """Write every count anew from the rows; return the ones that were wrong."""


class SearchIndex(Protocol):
    """Finds messages whose folded body contains a folded text: exactly, in every script."""

    async def apply(self, entries: Sequence[Entry]) -> None:
        """Index the entries durably. Tolerates repetition and reordering: the highest revision wins.

        Raises:
            Unavailable: the index is away; nothing is lost by trying again.
        """

    async def in_chat(
        self, application: ApplicationId, chat: int, folded: str, *, before: int | None, limit: int
    ) -> Sequence[Message]:
        """Matches in one chat, newest (highest number) first, below `before`.

        Raises:
            NotFound: the chat is unknown to this application.
            Unavailable: the index is away.
        """

    async def in_application(
        self, application: ApplicationId, folded: str, *, after: Found | None, limit: int
    ) -> Sequence[tuple[Found, FoundMessage]]:
        """Matches in all chats of an application, newest (`created_at`, chat, number) first, beyond `after`.

        Raises:
            NotFound: the application was erased.
            Unavailable: the index is away.
        """

    async def ping(self) -> None:
        """Raises Unavailable, naming what is away that searches need."""


class Feed(Protocol):
    """Tells streams when to look again. A hint, the store is the truth: a lost wake-up costs latency only."""

    def announce(self, application: ApplicationId, chat: int) -> None:
        """Something in the chat changed and can be read. Called after it was applied; never blocks."""

    def announce_erased(self, application: ApplicationId) -> None:
        """The application is gone: wake every stream of its chats."""

    def listen(self, application: ApplicationId, chat: int, wake: Wake) -> AbstractContextManager[None]:
        """Call `wake` (on the event loop, soon) at each announcement of the chat while the context is open."""


class Wake(Protocol):
    """What a feed calls: quick, and never raising."""

    def __call__(self) -> None:
        """Something changed."""


class Rates(Protocol):
    """Counts requests over all processes of a house, in buckets that fill with time."""

    async def take(self, bucket: str, cost_us: float, depth_us: float, wanted: int) -> tuple[int, float]:
        """Take up to `wanted` requests of `cost_us` each out of a bucket of `depth_us` (microseconds).

        Returns how many were granted and, if none, after how many seconds there will be one.

        Raises:
            Unavailable: nobody knows.
        """


class ApplicationWindow(Struct, frozen=True):
    """A page of applications: beyond or before a place (creation in milliseconds, start of the token), or by page."""

    limit: int
    after: tuple[int, str] | None = None
    before: tuple[int, str] | None = None
    skip: int = 0
