"""Numbers, revisions, edits, tombstones, windows and idempotency keys, against a plain Python model.

Hypothesis makes up sequences of requests; after each one the answer, and in the end everything readable, must
be what the model holds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.client import ChatAt
from tests.houses import House
from tests.properties.budget import budget
from tests.properties.plain_model import Json, Kept, ModelApplication, ModelChat, same_json, timeless
from tests.properties.settling import eventually_equal

EXAMPLES = 25
STEPS = 25
# Few values, so that edits that change nothing and keys that repeat come up often.
BODIES = st.sampled_from(["a", "b", " leading and trailing ", "ß", "\U0001f469\u200d\U0001f680", "line\nline\r\n", "0"])
METADATA = st.sampled_from(
    [None, {}, {"a": 1}, {"a": True}, {"a": 1, "b": [1, None, "x"]}, {"b": [1, None, "x"], "a": 1}]
)
SENDERS = st.sampled_from([None, "ada", "Ada"])
KEYS = st.sampled_from([None, None, "k1", "k2", '"k1"'])
ITEMS = st.fixed_dictionaries({"body": BODIES}, optional={"sender": SENDERS, "metadata": METADATA})
PATCHES = st.fixed_dictionaries({}, optional={"body": BODIES, "metadata": METADATA})
CHATS = st.fixed_dictionaries({}, optional={"title": st.sampled_from([None, "t", " t"]), "metadata": METADATA})
REFUSED = st.sampled_from([{}, {"body": ""}, {"body": 1}, {"body": "x", "more": 1}, {"body": "\0"}, {"body": None}])
PICK = st.integers(min_value=0, max_value=1000)


class Numbering(RuleBasedStateMachine):
    """One application, used by one client that keeps book."""

    def __init__(self, http: httpx.Client) -> None:
        super().__init__()
        self.http = http
        self.model = ModelApplication()
        self.token = ""

    @initialize()
    def start(self) -> None:
        """A fresh application with one chat."""
        answer = self.http.post("/applications", json={"name": "A property"})
        assert answer.status_code == 201
        self.token = answer.json()["token"]
        self.open_chat({}, None, by_alias=False)

    def chat(self, pick: int) -> ModelChat:
        """One of the chats."""
        return self.model.chats[pick % len(self.model.chats)]

    def path(self, chat: ModelChat, below: str = "") -> str:
        """The path of a chat or of something below it."""
        return f"/applications/{self.token}/chats/{chat.number}{below}"

    def create(self, path: str, alias: str | None, payload: Any, key: str | None) -> Json | list[Json] | None:
        """POST with a key: the answer if something was created, None if it was a repeat or a mismatch."""
        headers = {"Authorization": f"Bearer {self.token}"} if alias else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = self.http.post(alias or path, json=payload, headers=headers)
        # A quoted key and a bare one are the same key; an alias counts as the path it stands for.
        kept = None if key is None else self.model.keys.get((path, key.strip('"')))
        if kept is None:
            assert answer.status_code == 201, answer.text
            assert answer.headers.get("idempotency-replayed") in (None, "false")
            if key is not None:
                self.model.keys[path, key.strip('"')] = Kept(payload, answer.json())
            made: Json | list[Json] = answer.json()
            return made
        if same_json(kept.payload, payload):
            assert answer.status_code == 201, answer.text
            assert answer.headers["idempotency-replayed"] == "true"
            assert same_json(repeated(answer.json()), repeated(kept.answer)), (answer.text, kept)
        else:
            assert answer.status_code == 422, answer.text
            assert answer.json()["code"] == "idempotency_mismatch"
        return None

    @rule(payload=CHATS, key=KEYS, by_alias=st.booleans())
    def open_chat(self, payload: Json, key: str | None, *, by_alias: bool) -> None:
        """Create a chat, by its path or the alias."""
        alias = f"/chats/{self.token}" if by_alias else None
        made = self.create(f"/applications/{self.token}/chats", alias, payload, key)
        if made is not None:
            assert isinstance(made, dict)
            self.model.open_chat(payload, made)

    @rule(pick=PICK, item=ITEMS, key=KEYS, by_alias=st.booleans())
    def post(self, pick: int, item: Json, key: str | None, *, by_alias: bool) -> None:
        """Post a message, by its path or the alias."""
        chat = self.chat(pick)
        alias = f"/chats/{chat.number}/messages" if by_alias else None
        made = self.create(self.path(chat, "/messages"), alias, item, key)
        if made is not None:
            assert isinstance(made, dict)
            chat.post(item, made)

    @rule(pick=PICK, items=st.lists(ITEMS, min_size=1, max_size=5), key=KEYS)
    def post_batch(self, pick: int, items: list[Json], key: str | None) -> None:
        """Post several messages at once: consecutive numbers."""
        chat = self.chat(pick)
        made = self.create(self.path(chat, "/messages/batch"), None, {"messages": items}, key)
        if made is not None:
            assert isinstance(made, list)
            assert len(made) == len(items)
            for item, answer in zip(items, made, strict=True):
                chat.post(item, answer)

    @rule(pick=PICK, payload=REFUSED, batch=st.booleans(), key=KEYS)
    def be_refused(self, pick: int, payload: Json, key: str | None, *, batch: bool) -> None:
        """What is refused takes no number and keeps no key."""
        chat = self.chat(pick)
        below = "/messages/batch" if batch else "/messages"
        if key is not None and (self.path(chat, below), key.strip('"')) in self.model.keys:
            key = None
        body = {"messages": [{"body": "fine"}, payload]} if batch else payload
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self.http.post(self.path(chat, below), json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")

    @rule(pick=PICK, payload=CHATS)
    def change_chat(self, pick: int, payload: Json) -> None:
        """A chat's title or metadata takes no revision."""
        chat = self.chat(pick)
        answer = self.http.patch(self.path(chat), json=payload)
        assert answer.status_code == 200, answer.text
        chat.fields = chat.fields | payload

    def some_message(self, pick: int) -> tuple[ModelChat, int]:
        """A message of any chat."""
        every = [(chat, number) for chat in self.model.chats for number in range(1, len(chat.messages) + 1)]
        return every[pick % len(every)]

    def has_messages(self) -> bool:
        """Whether any chat has a message."""
        return any(chat.messages for chat in self.model.chats)

    @precondition(has_messages)
    @rule(pick=PICK, patch=PATCHES)
    def edit(self, pick: int, patch: Json) -> None:
        """Edit a message; of a tombstone it is a conflict."""
        chat, number = self.some_message(pick)
        answer = self.http.patch(self.path(chat, f"/messages/{number}"), json=patch)
        if chat.messages[number - 1]["deleted_at"] is None:
            assert answer.status_code == 200, answer.text
            chat.edit(number, patch, answer.json())
        else:
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")

    @precondition(has_messages)
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        """Delete a message, deleted already or not."""
        chat, number = self.some_message(pick)
        assert self.http.delete(self.path(chat, f"/messages/{number}")).status_code == 204
        chat.delete(number, self.http.get(self.path(chat, f"/messages/{number}")).json())

    @rule(pick=PICK)
    def miss(self, pick: int) -> None:
        """The number after the last is 404 to read, edit and delete."""
        chat = self.chat(pick)
        path = self.path(chat, f"/messages/{len(chat.messages) + 1}")
        answers = [self.http.get(path), self.http.patch(path, json={"body": "x"}), self.http.delete(path)]
        assert [answer.status_code for answer in answers] == [404] * 3

    @rule(
        pick=PICK,
        after=st.none() | st.integers(0, 12),
        before=st.none() | st.integers(1, 12),
        limit=st.integers(1, 6),
        order=st.sampled_from(["asc", "desc"]),
    )
    def list_window(self, pick: int, after: int | None, before: int | None, limit: int, order: str) -> None:
        """Any window of the list is the model's."""
        chat = self.chat(pick)
        params: dict[str, int | str] = {"limit": limit, "order": order}
        params |= {} if after is None else {"after": after}
        params |= {} if before is None else {"before": before}
        answer = self.http.get(self.path(chat, "/messages"), params=params)
        assert answer.status_code == 200, answer.text
        assert same_json(answer.json(), chat.window(after, before, limit, order)), answer.text

    @rule(pick=PICK, after=st.integers(0, 30), limit=st.integers(1, 6))
    def list_changes(self, pick: int, after: int, limit: int) -> None:
        """changed_after gives each message once, in its latest state, by revision."""
        chat = self.chat(pick)
        params = {"changed_after": after, "limit": limit}
        answer = self.http.get(self.path(chat, "/messages"), params=params)
        assert answer.status_code == 200, answer.text
        assert same_json(answer.json(), chat.changes(after, limit)), answer.text

    def read_chat(self, chat: ModelChat) -> Json:
        """A chat as it is read now."""
        return without_time(self.http.get(self.path(chat)).json())

    def teardown(self) -> None:
        """In the end all that can be read is the model, counts and revisions included."""
        for chat in self.model.chats:
            listed = self.http.get(self.path(chat, "/messages"), params={"limit": 200}).json()
            assert same_json(listed, chat.messages), (listed, chat.messages)
            wanted = chat.fields | {"messages_count": chat.living, "revision": chat.revision}
            eventually_equal(partial(self.read_chat, chat), without_time(wanted))
        if self.token:
            path = f"/applications/{self.token}"
            eventually_equal(lambda: self.http.get(path).json()["chats_count"], len(self.model.chats))


def repeated(answer: Any) -> Any:
    """What a replay must repeat of an answer."""
    if isinstance(answer, list):
        return [repeated(item) for item in answer]
    return {name: value for name, value in timeless(answer).items() if name not in ("messages_count", "revision")} | {
        "created_at": answer["created_at"]
    }


def without_time(chat: Json) -> Json:
    """A chat without `updated_at`: editing it is not recorded in the model."""
    return {name: value for name, value in chat.items() if name != "updated_at"}


def test_every_sequence_of_requests_leaves_what_the_plain_model_holds(house: House) -> None:
    """Numbers, revisions, tombstones, windows, keys and counts are those of the model."""
    with httpx.Client(base_url=house.url, trust_env=False, timeout=30) as http:

        class OfThisHouse(Numbering):
            """The machine, bound to the house."""

            def __init__(self) -> None:
                super().__init__(http)

        run_state_machine_as_test(OfThisHouse, settings=budget(EXAMPLES, steps=STEPS))


@pytest.mark.parametrize(
    ("before", "after"),
    [({"a": True}, {"a": 1}), ({"a": 0}, {"a": False}), ({"a": [[1]]}, {"a": [[True]]}), ({"a": None}, {})],
)
async def test_an_edit_between_values_that_python_holds_equal_is_a_change(
    chat: ChatAt, before: Json, after: Json
) -> None:
    """JSON's true is not 1, and a null is not an absent key: the edit takes a revision and is there afterwards."""
    await chat.post("the same body", metadata=before)
    edited = await chat.edit(1, metadata=after)
    assert edited["revision"] == 2
    assert same_json(edited["metadata"], after)
    assert same_json((await chat.message(1))["metadata"], after)
