"""RateLimiter: `burst` at once after a pause, `rate_per_s` on average, and an honest word about when to come back."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_system.errors import TooMany
from chat_system.web import guard
from chat_system.web.guard import RateLimiter

RATES = st.integers(1, 50)
BURSTS = st.integers(1, 40)
# What a machine's monotonic clock may say: a moment after it was started, or years later.
STARTS = st.floats(0.001, 1e8)


class Clock:
    """A clock that stands until it is moved; it takes the place of the `time` module in the guard."""

    def __init__(self) -> None:
        self._now = Fraction(1000)

    @property
    def now(self) -> Fraction:
        """Seconds, exactly: a clock that rounds would let a test wait a nanosecond too little."""
        return self._now

    @now.setter
    def now(self, seconds: float | Fraction) -> None:
        self._now = Fraction(seconds)

    def monotonic_ns(self) -> int:
        """The moment that the test has set."""
        return int(self._now * 1_000_000_000)


@pytest.fixture(scope="module", autouse=True)
def clock() -> Iterator[Clock]:
    """The guard's clock, moved by the test."""
    with pytest.MonkeyPatch.context() as patch:
        moved = Clock()
        patch.setattr(guard, "time", moved)
        yield moved


def admitted(limiter: RateLimiter, key: object = "key") -> bool:
    """Whether one request may pass now."""
    try:
        limiter.admit(key)
    except TooMany:
        return False
    return True


@given(RATES, BURSTS, STARTS)
def test_a_burst_passes_after_a_pause_and_no_more(clock: Clock, rate: int, burst: int, start: float) -> None:
    """Exactly `burst` requests at one moment, at the start and after being idle for as long as it takes to fill."""
    clock.now = start
    limiter = RateLimiter("p", rate, burst)
    for _ in range(2):
        assert [admitted(limiter) for _ in range(burst + 3)] == [True] * burst + [False] * 3
        clock.now += burst / rate + 1


@given(RATES, BURSTS, STARTS, st.lists(st.floats(0, 0.3), min_size=1, max_size=120))
def test_never_more_than_the_rate_and_the_burst(
    clock: Clock, rate: int, burst: int, start: float, pauses: list[float]
) -> None:
    """In any span of time no more than `burst` requests and `rate` for each second pass."""
    clock.now = start
    limiter = RateLimiter("p", rate, burst)
    passed: list[Fraction] = []
    for pause in pauses:
        clock.now += pause
        if admitted(limiter):
            passed.append(clock.now)
    for first, begin in enumerate(passed):
        for count, end in enumerate(passed[first:], 1):
            assert count <= burst + rate * (end - begin) + 0.01


@given(RATES, BURSTS, STARTS, st.integers(1, 60))
def test_who_keeps_to_the_rate_is_never_refused(clock: Clock, rate: int, burst: int, start: float, count: int) -> None:
    """Evenly spaced requests pass for ever, also right after a whole burst."""
    clock.now = start
    limiter = RateLimiter("p", rate, burst)
    for _ in range(burst):
        limiter.admit("key")
    for _ in range(count):
        clock.now += 1 / rate + 1e-6
        assert admitted(limiter)


@given(RATES, BURSTS, STARTS, st.integers(0, 30))
def test_whoever_waits_as_long_as_it_is_told_may_pass(
    clock: Clock, rate: int, burst: int, start: float, insisting: int
) -> None:
    """Retry-After is whole seconds, at least one; being refused costs nothing, so insisting does not prolong it."""
    clock.now = start
    limiter = RateLimiter("p", rate, burst)
    for _ in range(burst):
        limiter.admit("key")
    with pytest.raises(TooMany) as refusal:
        limiter.admit("key")
    for _ in range(insisting):
        assert not admitted(limiter)
    wait_s = refusal.value.retry_after_s
    assert isinstance(wait_s, int)
    assert 1 <= wait_s <= 1 + 1 / rate
    clock.now += wait_s
    assert admitted(limiter)


def test_a_refusal_tells_the_policy(clock: Clock) -> None:
    """Its name, how many requests in how many seconds, and when to come back."""
    limiter = RateLimiter("application", 20, 60)
    for _ in range(60):
        limiter.admit("key")
    with pytest.raises(TooMany) as refusal:
        limiter.admit("key")
    told = refusal.value
    assert (told.policy, told.quota, told.window_s, told.retry_after_s) == ("application", 60, 3, 1)


def test_every_key_has_a_bucket_of_its_own(clock: Clock) -> None:
    """Who is over the limit hinders nobody else, whatever kind of key it has."""
    limiter = RateLimiter("p", 1, 2)
    assert [admitted(limiter, "one") for _ in range(3)] == [True, True, False]
    for key in ("other", 1, "1", ("127.0.0.1",)):
        assert [admitted(limiter, key) for _ in range(3)] == [True, True, False]


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys come, no more than BUCKETS_MAX are kept, and no request is refused for it."""
    monkeypatch.setattr(guard, "BUCKETS_MAX", 100)
    limiter = RateLimiter("p", 1, 5)
    for key in range(1_000):
        assert admitted(limiter, key)
        assert len(limiter._full_at_ns) <= 100  # noqa: SLF001 - what it keeps is what is bounded
