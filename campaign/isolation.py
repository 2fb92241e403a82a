"""Every operation of the OpenAPI document, with every token, number and id that is not the caller's.

Whatever exists for somebody else, exists for nobody, or existed once, must be the same 404: the answer tells no
difference but the numbers and ids that were asked for. Cases are made from the document, so an operation that is
added later is among them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

NOT_NUMBERS = ("0", "-1", "01", "1.0", "x", "2147483648", "99999999999999999999", "%00")
UNKNOWN = "A" * 43
ABSENT = 999
OWN_ID = re.compile(r"\b\d+\b")


@dataclass(frozen=True)
class Case:
    """One request that must be 404, and why it must."""

    operation: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    why: str


@dataclass(frozen=True)
class People:
    """Applications: ours with a chat and a message, theirs with more of both, and one that was erased."""

    ours: str
    theirs: str
    erased: str

    @classmethod
    def move_in(cls, http: httpx.Client) -> People:
        """Make them."""
        ours, theirs, erased = (
            http.post("/applications", json={"name": "Lives here"}).json()["token"] for _ in range(3)
        )
        for token, chats, messages in ((ours, 1, 1), (theirs, 3, 3), (erased, 1, 1)):
            for chat in range(1, chats + 1):
                http.post(f"/applications/{token}/chats", json={"title": "a chat"}).raise_for_status()
                for _ in range(messages):
                    path = f"/applications/{token}/chats/{chat}/messages"
                    http.post(path, json={"body": "a message"}).raise_for_status()
        http.delete(f"/applications/{erased}").raise_for_status()
        return cls(ours, theirs, erased)


def cases(document: Mapping[str, Any], people: People) -> Iterator[Case]:
    """All of them."""
    tokens = {"erased": people.erased, "unknown": UNKNOWN, "cut": people.ours[:-1], "longer": f"{people.ours}A"}
    tokens |= {"in another case": people.ours.swapcase(), "of theirs, cut": people.theirs[1:]}
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            names = re.findall(r"{(\w+)}", path)
            by_header = "token" not in names and bool(names)
            for wrong, token in tokens.items():
                if "token" in names or by_header:
                    yield _case(
                        about, method, path, {"token": token, "number": 1, "message_number": 1}, f"{wrong} token"
                    )
            # The second chat and the third message are theirs: numbers that exist, though not here.
            for number in (2, 3, ABSENT, *NOT_NUMBERS) if "number" in names else ():
                fill = {"token": people.ours, "number": number, "message_number": 1}
                yield _case(about, method, path, fill, f"chat {number}")
            for number in (2, 3, ABSENT, *NOT_NUMBERS) if "message_number" in names else ():
                fill = {"token": people.ours, "number": 1, "message_number": number}
                yield _case(about, method, path, fill, f"message {number}")


def _case(about: Mapping[str, Any], method: str, path: str, fill: Mapping[str, Any], why: str) -> Case:
    headers: tuple[tuple[str, str], ...] = ()
    if "{token}" not in path:
        headers = (("Authorization", f"Bearer {fill['token']}"),)
    for name, value in fill.items():
        path = path.replace("{" + name + "}", str(value))
    required = [one["name"] for one in about["parameters"] if one["in"] == "query" and one["required"]]
    query = "?" + "&".join(f"{name}=x" for name in required) if required else ""
    return Case(about["operationId"], method.upper(), path + query, headers, why)


def faults(http: httpx.Client, document: Mapping[str, Any], people: People) -> tuple[int, list[str]]:
    """How many cases there were, and what was answered otherwise."""
    wrong, count = [], 0
    seen: dict[str, dict[str, Any]] = {}
    bodies = itertools.cycle((b'{"body":"x"}', b"{not json", b""))
    for case in cases(document, people):
        count += 1
        answer = http.request(case.method, case.path, headers=dict(case.headers), content=next(bodies))
        if answer.status_code != 404:
            wrong.append(f"{case}: {answer.status_code} {answer.text[:200]}")
            continue
        problem = answer.json()
        del problem["request_id"]
        # Ids of the request itself may be repeated; nothing else may differ.
        problem["detail"] = OWN_ID.sub("n", problem["detail"])
        # That a path is none, because of a number that is none, everybody can tell.
        what, which = case.why.rsplit(" ", 1)
        kind = f"not a {what}" if which in NOT_NUMBERS else "token" if which == "token" else what
        first = seen.setdefault(f"{case.operation} {kind}", problem)
        if problem != first:
            wrong.append(f"{case}: {problem} is not {first}")
    return count, wrong
