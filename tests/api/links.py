"""Reading and following Link headers (RFC 8288)."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

from tests.client import Client, expect

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[a-z]+="?[^",;]*"?)*)')


def link(response: httpx.Response, relation: str) -> str | None:
    """The absolute URL of a relation, or None where the response has no such link."""
    for target, parameters in cast(list[tuple[str, str]], _LINK.findall(response.headers.get("link", ""))):
        if f'rel="{relation}"' in parameters:
            return urljoin(str(response.request.url), target)
    return None


def link_query(response: httpx.Response, relation: str) -> dict[str, str]:
    """The query parameters of a relation, each once."""
    url = link(response, relation)
    assert url is not None, f"no {relation} in {response.headers.get('link')!r}"
    pairs = parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert all(len(values) == 1 for values in pairs.values()), url
    return {name: values[0] for name, values in pairs.items()}


async def pages(client: Client, path: str, relation: str = "next", **params: Any) -> list[list[Any]]:
    """Every page from the first request on, following one relation to its end."""
    response = expect(await client.get(path, params=params or None), 200)
    found = [response.json()]
    while (url := link(response, relation)) is not None:
        assert len(found) < 500, "the links never end"
        response = expect(await client.get(url), 200)
        found.append(response.json())
    return found
