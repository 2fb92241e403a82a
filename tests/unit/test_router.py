"""Router: fixed words win, parameters are what they can be, and every operation is found by its path."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_system.model import NUMBER_MAX
from chat_system.web.documentation import PAGES
from chat_system.web.routes import OPERATIONS, Router, path_parameter

TOKEN = "T" * 43
VALUES: dict[str, str | int] = {"token": TOKEN, "number": 7, "message_number": 9, "file": "index.html"}


@pytest.fixture(scope="module")
def router() -> Router:
    """A router that knows every operation by its name."""
    made = Router()
    for operation in (*OPERATIONS, *PAGES):
        made.add(operation.method, operation.path, operation.name)
    return made


def filled(path: str) -> tuple[str, dict[str, str | int]]:
    """A template with values in it, and those values."""
    parts = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    for name in parts:
        path = path.replace("{" + name + "}", str(VALUES[name]))
    return path, {name: VALUES[name] for name in parts}


def test_every_operation_is_found_by_its_path_and_method(router: Router) -> None:
    """With its parameters, numbers as numbers."""
    for operation in (*OPERATIONS, *PAGES):
        path, parameters = filled(operation.path)
        found = router.find(path)
        assert found is not None, path
        assert found[0][operation.method] == operation.name
        assert found[1] == parameters


def test_operations_differ_by_name_and_by_method_and_path() -> None:
    """No row of the table hides another."""
    rows = (*OPERATIONS, *PAGES)
    assert len({operation.name for operation in rows}) == len(rows)
    assert len({(operation.method, operation.path) for operation in rows}) == len(rows)


def test_a_fixed_word_wins_over_a_parameter(router: Router) -> None:
    """`search` is no message number, and what it does not answer is not tried elsewhere."""
    for path in (f"/applications/{TOKEN}/messages/search", f"/applications/{TOKEN}/chats/1/messages/search"):
        found = router.find(path)
        assert found is not None
        assert set(found[0]) == {"GET"}
    batch = router.find(f"/applications/{TOKEN}/chats/1/messages/batch")
    assert batch is not None
    assert set(batch[0]) == {"POST"}


UNKNOWN = [
    "",
    "//",
    "/applications/",
    "//applications",
    "/Applications",
    f"/applications/{TOKEN}/",
    f"/applications/{TOKEN}/chats/",
    "/applications//chats",
    f"/applications/{TOKEN}/chats/1/",
    f"/applications/{TOKEN}/chats/1/messages/1/",
    f"/applications/{TOKEN}/chats/1/messages/1/2",
    f"/applications/{TOKEN}/unknown",
    "/chats",
    "/chats/",
    "/health",
    "/health/",
    "/swagger",
    "/swagger/",
    "/swagger/a/b",
]


@pytest.mark.parametrize("path", UNKNOWN)
def test_what_is_no_path_is_not_found(router: Router, path: str) -> None:
    """A trailing slash, an empty part, another letter case, a part too many or too few."""
    assert router.find(path) is None


@pytest.mark.parametrize(
    "text", ["0", "01", "-1", "+1", "1.0", "1e3", " 1", "1 ", "٣", "１", "x", "", "2147483648", "9" * 30]
)
def test_what_is_no_positive_decimal_integer_is_no_number(router: Router, text: str) -> None:
    """Nor is one beyond the largest that there can be: its path does not exist."""
    for template in ("/applications/{t}/chats/{n}", "/applications/{t}/chats/1/messages/{n}", "/chats/{n}/messages"):
        assert router.find(template.format(t=TOKEN, n=text)) is None
    assert path_parameter("number", text) is None


def test_the_largest_number_is_one() -> None:
    """And the first."""
    assert path_parameter("number", str(NUMBER_MAX)) == NUMBER_MAX
    assert path_parameter("message_number", "1") == 1


WORDS = st.sampled_from(["a", "b", "{token}", "{number}"])
PATHS = st.lists(WORDS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS, min_size=1, max_size=6, unique_by=lambda path: tuple("{" in part for part in path.split("/"))))
def test_what_was_added_is_found(paths: list[str]) -> None:
    """Any set of templates, of which each has parameters in other places: each filled one leads to its own."""
    router = Router()
    for path in paths:
        router.add("GET", path, path)
    for path in paths:
        found = router.find(path.replace("{token}", "token").replace("{number}", "12"))
        if found is None:
            # A fixed word of another template stands in the way only where the parameter was that very word.
            assert any("a" in other or "b" in other for other in paths)
        else:
            assert found[0] == {"GET": path}


def test_answers_are_remembered_and_stay_right(router: Router) -> None:
    """Asked again and again, in any order, more often than it remembers: always the same."""
    paths = [f"/applications/{TOKEN}/chats/{number}" for number in range(1, 5_000)]
    for first, second in pairwise(paths):
        for path in (first, second):
            found = router.find(path)
            assert found is not None
            assert found[1] == {"token": TOKEN, "number": int(path.rsplit("/", 1)[1])}
