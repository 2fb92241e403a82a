"""The OpenAPI document and its user interface, both served from the package alone (API.md, "Operations")."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from tests.client import ChatAt, Client, expect

CHAT, MESSAGES = "/applications/{}/chats/{}", "/applications/{}/chats/{}/messages"
OPERATIONS: dict[str, set[str]] = {
    "/applications": {"get", "post"},
    "/applications/{}": {"get", "put", "patch", "delete"},
    "/applications/{}/chats": {"get", "post"},
    CHAT: {"get", "patch"},
    MESSAGES: {"get", "post"},
    f"{MESSAGES}/batch": {"post"},
    f"{MESSAGES}/{{}}": {"get", "patch", "delete"},
    f"{MESSAGES}/search": {"get"},
    "/applications/{}/messages/search": {"get"},
    f"{CHAT}/events": {"get"},
    "/health/live": {"get"},
    "/health/ready": {"get"},
    "/metrics": {"get"},
    "/chats/{}": {"post"},
    "/chats/{}/messages": {"post"},
    "/chats/{}/messages/search": {"get"},
}
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture
async def document(client: Client) -> dict[str, Any]:
    """The OpenAPI document, as served."""
    served: dict[str, Any] = await client.get_json("/openapi.json")
    return served


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """What a node says, its reference followed."""
    while "$ref" in node:
        target = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def parameters(document: dict[str, Any], path: str, method: str) -> dict[str, str]:
    """The parameters of an operation and where they stand; `path` has {} for each path parameter."""
    for template, item in document["paths"].items():
        if re.sub(r"\{[^}]*\}", "{}", template) == path:
            both = [*item.get("parameters", []), *item[method].get("parameters", [])]
            return {each["name"]: each["in"] for each in (resolve(document, one) for one in both)}
    raise AssertionError(f"{path} is not documented")


def walk(node: Any) -> list[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(node, dict):
        return [node, *(each for value in node.values() for each in walk(value))]
    return [each for value in node for each in walk(value)] if isinstance(node, list) else []


async def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    """It says so, and names the service and its version."""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]


async def test_both_paths_serve_the_same_document(client: Client, document: dict[str, Any]) -> None:
    """The seed's path and the usual one."""
    assert await client.get_json("/swagger/doc.json") == document


async def test_every_operation_is_documented_aliases_included(document: dict[str, Any]) -> None:
    """Exactly the contract's operations: none missing, none invented."""
    documented: dict[str, set[str]] = {}
    for path, item in document["paths"].items():
        documented.setdefault(re.sub(r"\{[^}]*\}", "{}", path), set()).update(METHODS & item.keys())
    unlisted = {path for path in documented if path.startswith(("/openapi", "/swagger"))}
    assert {path: methods for path, methods in documented.items() if path not in unlisted} == OPERATIONS


async def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    """Generated clients need a unique operationId for each, and people a summary."""
    operations = [item[method] for item in document["paths"].values() for method in METHODS & item.keys()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] for operation in operations)


async def test_every_reference_leads_somewhere_inside(document: dict[str, Any]) -> None:
    """The document is whole: no reference to a file or a host, none that dangles."""
    references = [each["$ref"] for each in walk(document) if isinstance(each.get("$ref"), str)]
    assert references
    for reference in set(references):
        assert reference.startswith("#/"), reference
        assert resolve(document, {"$ref": reference})


async def test_every_path_parameter_is_declared(document: dict[str, Any]) -> None:
    """Each {name} of a path is a required parameter of its operations."""
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            declared = [
                resolve(document, each) for each in item.get("parameters", []) + item[method].get("parameters", [])
            ]
            in_path = {each["name"] for each in declared if each["in"] == "path" and each["required"] is True}
            assert in_path == set(re.findall(r"\{([^}]*)\}", path)), (method, path)


@pytest.mark.parametrize(
    ("path", "method", "names"),
    [
        ("/applications", "get", {"limit", "page"}),
        ("/applications", "post", {"Idempotency-Key"}),
        ("/applications/{}/chats", "get", {"after", "before", "limit", "page"}),
        ("/applications/{}/chats", "post", {"Idempotency-Key"}),
        ("/chats/{}", "post", {"Idempotency-Key"}),
        (MESSAGES, "get", {"after", "before", "limit", "order", "changed_after"}),
        (MESSAGES, "post", {"Idempotency-Key"}),
        (f"{MESSAGES}/batch", "post", {"Idempotency-Key"}),
        (f"{MESSAGES}/search", "get", {"q", "before", "limit"}),
        ("/applications/{}/messages/search", "get", {"q", "limit"}),
        (f"{CHAT}/events", "get", {"after", "Last-Event-ID"}),
        ("/chats/{}/messages", "post", {"Idempotency-Key"}),
        ("/chats/{}/messages/search", "get", {"q", "before", "limit"}),
    ],
)
async def test_every_parameter_of_the_contract_is_documented(
    document: dict[str, Any], path: str, method: str, names: set[str]
) -> None:
    """What a client may send stands in the document, header or query."""
    assert names <= parameters(document, path, method).keys()


@pytest.mark.parametrize(("path", "method"), [("/chats/{}/messages", "post"), ("/chats/{}/messages/search", "get")])
async def test_the_short_paths_name_the_three_places_of_a_token(
    document: dict[str, Any], path: str, method: str
) -> None:
    """As three kinds of credentials, of which one is needed."""
    item = next(item for known, item in document["paths"].items() if re.sub(r"{\w+}", "{}", known) == path)
    schemes = document["components"]["securitySchemes"]
    places = [schemes[name] for choice in item[method]["security"] for name in choice]
    assert [(one["type"], one.get("in"), one.get("name")) for one in places] == [
        ("http", None, None),
        ("apiKey", "header", "X-Application-Token"),
        ("apiKey", "query", "token"),
    ]


async def test_every_operation_documents_its_success_and_its_refusals(document: dict[str, Any]) -> None:
    """One success, and refusals only as problem documents."""
    for path, item in document["paths"].items():
        if path.startswith(("/health", "/metrics", "/swagger", "/openapi")):
            continue
        for method in METHODS & item.keys():
            responses = {status: resolve(document, each) for status, each in item[method]["responses"].items()}
            assert sum(status.startswith("2") for status in responses) == 1, (method, path)
            refusals = [each for status, each in responses.items() if not status.startswith("2")]
            assert refusals, (method, path)
            assert all(set(each["content"]) == {"application/problem+json"} for each in refusals), (
                method,
                path,
            )


async def test_the_limits_stand_in_the_document(document: dict[str, Any]) -> None:
    """A client can read the largest name, page and batch from the schemas."""
    numbers = {value for each in walk(document) for value in each.values() if type(value) is int}
    assert {255, 200, 500, 256} <= numbers


async def test_undocumented_statuses_do_not_occur_in_a_normal_life(document: dict[str, Any], chat: ChatAt) -> None:
    """The statuses of some everyday requests are those that the document promises."""
    await chat.post()
    for method, below, template, options in [
        ("GET", "", CHAT, {}),
        ("GET", "/messages?limit=0", MESSAGES, {}),
        ("POST", "/messages", MESSAGES, {"json": {"body": "x"}}),
        ("POST", "/messages", MESSAGES, {"json": {"body": ""}}),
        ("GET", "/messages/99", f"{MESSAGES}/{{}}", {}),
        ("DELETE", "/messages/1", f"{MESSAGES}/{{}}", {}),
        ("PATCH", "/messages/1", f"{MESSAGES}/{{}}", {"json": {"body": "x"}}),
    ]:
        response = await chat.request(method, below, **options)
        for path, item in document["paths"].items():
            if re.sub(r"\{[^}]*\}", "{}", path) == template:
                assert str(response.status_code) in item[method.lower()]["responses"], (method, template)


class Assets(HTMLParser):
    """Collects what an HTML page loads, and its inline scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the sources of scripts and images and the targets of links."""
        named = dict(attrs)
        if tag in ("script", "img", "iframe") and named.get("src"):
            self.urls.append(str(named["src"]))
        if tag == "link" and named.get("href"):
            self.urls.append(str(named["href"]))


def own_scripts(page: str) -> list[str]:
    """The scripts of a page that are not Swagger UI's own bundles."""
    assets = Assets()
    assets.feed(page)
    return [url for url in assets.urls if url.endswith(".js") and "swagger-ui" not in url]


async def test_the_page_loads_only_from_this_server_and_everything_it_loads_is_there(client: Client) -> None:
    """Swagger UI works offline: no other host in the page, and each script and style is served."""
    page = expect(await client.get("/swagger/index.html"), 200)
    assert page.headers["content-type"].split(";")[0] == "text/html"
    own_host = urlsplit(client.url).netloc
    hosts = {urlsplit(url).netloc for url in re.findall(r"(?:https?:)?//[^\s\"'<>)]+", page.text)}
    assert hosts <= {own_host, ""}
    assets = Assets()
    assets.feed(page.text)
    kinds = {url.partition("?")[0].rpartition(".")[2] for url in assets.urls}
    assert {"js", "css"} <= kinds
    for url in assets.urls:
        if url.startswith("data:"):
            continue
        target = urljoin(str(page.request.url), url)
        assert urlsplit(target).netloc == own_host
        asset = expect(await client.get(target), 200)
        assert asset.content
        kind = asset.headers["content-type"]
        expected = {"js": "javascript", "css": "css", "png": "image/png"}.get(target.rpartition(".")[2], "")
        assert expected in kind, (target, kind)


async def test_the_page_shows_the_document_of_this_server(client: Client) -> None:
    """The page, or a script of its own, points Swagger UI to the document served here."""
    page = (await client.get("/swagger/index.html")).text
    texts = [page] + [(await client.get(urljoin("/swagger/index.html", url))).text for url in own_scripts(page)]
    pointed = [url for text in texts for url in re.findall(r"""["']([^"']*(?:doc|openapi)\.json)["']""", text)]
    assert pointed
    for url in pointed:
        target = urljoin(f"{client.url}/swagger/index.html", url)
        assert urlsplit(target).netloc == urlsplit(client.url).netloc
        expect(await client.get(target), 200)


async def test_scripts_of_the_page_name_no_other_host_to_load_from(client: Client) -> None:
    """The initialising script has no petstore and no validator of another host."""
    page = (await client.get("/swagger/index.html")).text
    assert own_scripts(page)
    for url in own_scripts(page):
        script = expect(await client.get(urljoin("/swagger/index.html", url)), 200).text
        assert not re.search(r"https?://", script)
