"""What every refusal must look like (API.md, "Errors"), checked in one place."""

from __future__ import annotations

from typing import Any

import httpx

PROBLEM_TYPE = "application/problem+json"


def expect_problem(response: httpx.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    """The problem document, once it is whole: members, stable code, request id, errors where they belong.

    With `pointer`, one entry of `errors` must blame exactly that field.
    """
    assert response.status_code == status, f"wanted {status}, got {response.status_code}: {response.text[:2000]}"
    assert response.headers["content-type"].split(";")[0] == PROBLEM_TYPE
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["code"] == code, problem
    for member in ("type", "title", "detail"):
        assert isinstance(problem[member], str), problem
        assert problem[member], problem
    assert problem["request_id"] == response.headers["x-request-id"]
    assert ("errors" in problem) == (code == "invalid"), problem
    for entry in problem.get("errors", []):
        assert set(entry) == {"pointer", "detail"}, entry
        assert isinstance(entry["detail"], str), entry
        assert entry["detail"], entry
        assert entry["pointer"] == "" or entry["pointer"][0] in "/?", entry
    if pointer is not None:
        assert pointer in [entry["pointer"] for entry in problem["errors"]], problem
    return problem


def expect_invalid(response: httpx.Response, pointer: str | None = None) -> dict[str, Any]:
    """400 `invalid`."""
    return expect_problem(response, 400, "invalid", pointer)


def expect_not_found(response: httpx.Response) -> dict[str, Any]:
    """404 `not_found`."""
    return expect_problem(response, 404, "not_found")
