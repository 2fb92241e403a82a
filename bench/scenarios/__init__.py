"""Every scenario, in the order in which they run.

A scenario is a name, a sentence, and a function that sets up its stage: it enters what it starts into the
exit stack, and is taken down when its rounds are over.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bench.measure import Stage
from bench.scenarios import (
    batches,
    importing,
    live,
    memory,
    open_rates,
    pages,
    posting,
    searching,
    stack_batching,
    stack_lagging,
    stack_posting,
    stack_projecting,
    stack_sustaining,
    stack_unapplied,
    starting,
)
from bench.workbench import Workbench

EMBEDDED, STACK = HOUSES = ("embedded", "stack")

SetUp = Callable[[Workbench, ExitStack], Stage]


@dataclass(frozen=True)
class Scenario:
    """Something to find out, by name."""

    name: str
    about: str
    set_up: SetUp
    house: str = EMBEDDED


SCENARIOS = (
    Scenario("post-1", "one durable message a request, 1 connection", partial(posting.set_up, 1)),
    Scenario("post-64", "one durable message a request, 64 connections", partial(posting.set_up, 64)),
    Scenario("post-256", "one durable message a request, 256 connections", partial(posting.set_up, 256)),
    Scenario("half", "one message a request, at half of the top rate", partial(open_rates.set_up_half, EMBEDDED)),
    Scenario("twice", "and at twice the top rate", partial(open_rates.set_up_twice, EMBEDDED)),
    Scenario("batch", "100 messages a request", batches.set_up),
    Scenario("live", "one chat's events to many readers", live.set_up),
    Scenario("import", "chat-system import of a file", importing.set_up),
    Scenario("page", "a page of 50 in a small and in a large database", pages.set_up),
    Scenario("search", "search of 1, 3 and 12 characters in a short and in a long chat", searching.set_up),
    Scenario("start", "from the start of the process to the first answer", starting.set_up),
    Scenario("memory", "the server's memory at rest, over a large database and under load", memory.set_up),
    Scenario("stack-post", "one durable message a request, 64 connections, API and Redis", stack_posting.set_up, STACK),
    Scenario(
        "stack-half", "one message a request, at half of the top rate", partial(open_rates.set_up_half, STACK), STACK
    ),
    Scenario("stack-twice", "and at twice the top rate", partial(open_rates.set_up_twice, STACK), STACK),
    Scenario("stack-batch", "100 messages a request", stack_batching.set_up, STACK),
    Scenario("stack-store", "what was accepted goes to MySQL", partial(stack_projecting.set_up, "store"), STACK),
    Scenario("stack-search", "and to Elasticsearch", partial(stack_projecting.set_up, "search"), STACK),
    Scenario("stack-sustained", "accepted, stored and searchable at once", stack_sustaining.set_up, STACK),
    Scenario("stack-lag", "from the answer to a POST until a search finds it", stack_lagging.set_up, STACK),
    Scenario("stack-unapplied", "a page of a chat of which nothing is applied yet", stack_unapplied.set_up, STACK),
    Scenario("stack-live", "one chat's events to many readers", live.set_up, STACK),
    Scenario("stack-page", "a page of 50 in a small and in a large database", pages.set_up, STACK),
    Scenario("stack-find", "search of 1, 3 and 12 characters in a short and in a long chat", searching.set_up, STACK),
    Scenario("stack-memory", "memory at rest, over a large database and under load", memory.set_up, STACK),
)
