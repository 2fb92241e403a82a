"""SharedRateLimiter: what all processes take from one bucket, and what is done when nobody can say what is left."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from chat_system.errors import TooMany, Unavailable
from chat_system.web import guard
from chat_system.web.guard import LEASE_NS, SECOND_NS, SharedRateLimiter


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * SECOND_NS

    def monotonic_ns(self) -> int:
        """The moment that the test has set."""
        return self.now_ns


class Bucket:
    """What the processes share: so many requests, each taken once. It may be away."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.away = False
        self.asked: list[tuple[str, float, float, int]] = []

    async def take(self, bucket: str, cost_us: float, depth_us: float, wanted: int) -> tuple[int, float]:
        """See `ports.Rates.take`."""
        self.asked.append((bucket, cost_us, depth_us, wanted))
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("Redis is away.")
        granted = min(wanted, self.left)
        self.left -= granted
        return granted, 0.0 if granted else 2.4


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The guard's clock, moved by the test."""
    moved = Clock()
    monkeypatch.setattr(guard, "time", moved)
    return moved


async def admit(limiter: SharedRateLimiter, key: object = 7) -> None:
    """Count one request. Raises TooMany."""
    taking = limiter.admit(key)
    if taking is not None:
        await taking


async def admitted(limiter: SharedRateLimiter, requests: int) -> int:
    """How many of so many requests, all at once, may pass."""

    async def one() -> bool:
        with contextlib.suppress(TooMany):
            await admit(limiter)
            return True
        return False

    return sum(await asyncio.gather(*(one() for _ in range(requests))))


@pytest.mark.parametrize(("rate", "burst"), [(10, 15), (2_000, 4_000)])
async def test_processes_together_pass_what_is_in_the_bucket(rate: int, burst: int) -> None:
    """Nothing is passed twice, and what one has not taken the others may."""
    bucket = Bucket(burst)
    limiters = [SharedRateLimiter("application", rate, burst, bucket) for _ in range(3)]
    passed = await asyncio.gather(*(admitted(limiter, burst) for limiter in limiters))
    assert sum(passed) == burst
    assert {asked[:3] for asked in bucket.asked} == {("application:7", 1_000_000 / rate, burst * 1_000_000 / rate)}


async def test_a_process_asks_once_for_many_of_an_application_that_may_make_many() -> None:
    """The shared bucket is asked for a hundredth of it at a time, by one request for all that wait."""
    bucket = Bucket(4_000)
    limiter = SharedRateLimiter("application", 2_000, 4_000, bucket)
    assert await admitted(limiter, 40) == 40
    assert [asked[3] for asked in bucket.asked] == [40]


async def test_what_was_taken_and_not_used_in_time_is_lost(clock: Clock) -> None:
    """Else whoever takes little by little would have a burst on top of the bucket's."""
    bucket = Bucket(80)
    limiter = SharedRateLimiter("application", 2_000, 4_000, bucket)
    assert await admitted(limiter, 1) == 1
    clock.now_ns += LEASE_NS + 1
    assert await admitted(limiter, 100) == 40


async def test_a_refusal_tells_the_policy_and_when_there_is_more() -> None:
    """In whole seconds, so that who has waited that long is let in."""
    limiter = SharedRateLimiter("application", 20, 60, Bucket(0))
    with pytest.raises(TooMany) as refusal:
        await admit(limiter)
    told = refusal.value
    assert (told.policy, told.quota, told.window_s, told.retry_after_s) == ("application", 60, 3, 3)


async def test_while_nobody_can_say_what_is_left_nobody_is_refused_for_it() -> None:
    """Without Redis requests pass the limiter, each of those that wait together; once it is back, they count again."""
    bucket = Bucket(5)
    limiter = SharedRateLimiter("application", 10, 15, bucket)
    bucket.away = True
    assert await admitted(limiter, 30) == 30
    bucket.away = False
    assert await admitted(limiter, 30) == 5


async def test_every_key_has_a_bucket_of_its_own() -> None:
    """Of an application, and of an address: named apart, for all of them are in one Redis."""
    bucket = Bucket(100)
    await admit(SharedRateLimiter("application", 1, 1, bucket), 7)
    await admit(SharedRateLimiter("unknown-token", 1, 1, bucket), "127.0.0.1")
    assert [asked[0] for asked in bucket.asked] == ["application:7", "unknown-token:127.0.0.1"]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys come, no more than BUCKETS_MAX are kept, and no request is refused for it."""
    monkeypatch.setattr(guard, "BUCKETS_MAX", 100)
    limiter = SharedRateLimiter("application", 1, 5, Bucket(1_000))
    for key in range(1_000):
        await admit(limiter, key)
        assert len(limiter._leases) <= 100  # noqa: SLF001 - what it keeps is what is bounded
    assert not limiter._renewing  # noqa: SLF001


@pytest.mark.timeout(10)
async def test_requests_that_come_in_the_moment_of_a_grant_do_not_stop_the_loop() -> None:
    """Those that find the grant there and used up ask anew: to look again and again would stop the whole process."""
    granted: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()

    class Once:
        async def take(self, *_: object) -> tuple[int, float]:
            return (1, 0.0) if granted.done() else await granted

    limiter = SharedRateLimiter("application", 1, 10, Once())
    requests = [asyncio.create_task(admit(limiter))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    granted.set_result((1, 0.0))
    # The loop takes these up behind the grant, and ahead of what its end calls back.
    requests += [asyncio.create_task(admit(limiter)) for _ in range(2)]
    await asyncio.gather(*requests)
