"""What was set aside: facts that could not be applied, kept with their errors until an operator decides.

They may be tried again, or discarded when they can never be applied. What readers still see is not discarded: a message
that the store can't take is on its chat's tail. When it was deleted or edited, its later state takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from chat_system.errors import Conflict
from chat_system.model import MessageChanged
from chat_system.ports import Projection, SetAside
from chat_system.stack import facts
from chat_system.stack.redis import Redis, Script

PROJECTIONS: tuple[Projection, ...] = ("store", "search")

MISSING, ON_TAIL = 0, 1
"""What discard.lua answers when nothing was discarded."""

_RETRY = Script("retry")
_DISCARD = Script("discard")


async def asides(redis: Redis) -> Sequence[SetAside]:
    """All of it. Raises Unavailable when Redis is away."""
    places = [(partition, projection) for partition in range(redis.partitions) for projection in PROJECTIONS]
    kept = await redis.commands(
        [("HGETALL", redis.key(partition, f"aside:{projection}")) for partition, projection in places]
    )
    return [
        SetAside(projection, position.decode(), *_what_and_why(value))
        for (_, projection), found in zip(places, kept, strict=True)
        for position, value in found.items()
    ]


async def retry(redis: Redis, projection: Projection) -> int:
    """Give what was set aside to the projection again; how many facts that were."""
    partitions = range(redis.partitions)
    return sum(await redis.call(_RETRY, [(partition, (projection,)) for partition in partitions]))


async def discard(redis: Redis, position: str) -> Sequence[SetAside]:
    """Forget what stands at a position, for whichever projection; what that was.

    Raises:
        Conflict: it is what readers see of a message or a chat, and nothing else holds that.
        Unavailable: Redis is away.
    """
    number = position.partition("/")[0]
    partition = int(number) if number.isdecimal() else 0
    if partition >= redis.partitions:
        return []
    answers = await redis.call(_DISCARD, [(partition, (projection, position)) for projection in PROJECTIONS])
    if ON_TAIL in answers:
        raise Conflict(
            "It is not in MySQL, and readers still see it: delete the message, or change the chat, through the API "
            "first. What takes its place is applied then."
        )
    return [
        SetAside(projection, position, *_what_and_why(kept))
        for projection, kept in zip(PROJECTIONS, answers, strict=True)
        if kept != MISSING
    ]


def _what_and_why(kept: bytes) -> tuple[str, str]:
    """What aside.lua has kept: the kind, the length of the error, the error, the fact."""
    length, _, rest = kept[1:].partition(b":")
    error, state = rest[: int(length)].decode(errors="replace"), rest[int(length) :]
    place = facts.read(kept[:1], facts.ARRAY_OF_ONE + state)[0]
    if isinstance(place, facts.Unreadable):
        return "unreadable", error
    application, chat, fact = place
    number = f", message {fact.number}" if isinstance(fact, MessageChanged) else ""
    return f"application {application}, chat {chat}{number}", error
