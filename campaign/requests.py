"""Makes requests up from the OpenAPI document: most of them nearly right, some right, some far from it.

    requests = Requests(document, chance, tokens)
    made = requests.make()          # a Made: the bytes, and the operation that they are about

Every choice comes from `chance`, so a seed repeats the requests; tokens, which a server makes up, differ.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Json = Any
Document = Mapping[str, Any]

STREAM = "streamEvents"
CREATE = "createApplication"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get")
ENDINGS = ("/", "//", "/x", "%20", "/..", "/%2e", "?", "#x", ";x")
NEW_TOKENS = 64
KEYS = 40
BIG_BODY_BYTES = 70_000
DEPTHS = (3, 50, 900, 20_000)

TEXTS = (
    *(
        "",
        " ",
        "a",
        "ß",
        "ẞ",
        "İ",
        "ı",
        "é",
        "e\u0301",
        "🙂",
        "👩\u200d👩\u200d👧",
        "\u202e",
        "\ufeff",
        "\u2028",
        "\x7f",
        "\x85",
    ),
    *("%", "_", "*", "?", "'", '"', "\\", "--", ";", "${x}", "{{x}}", "<script>", "../..", "null", "𐍈" * 20),
    *("x" * 255, "x" * 256, "x" * 257, "ö" * 128, "NaN", "1e309", "-0", "true", "0", "\t", "\n", "\r\n"),
)
ODD_VALUES: tuple[Json, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e300),
    *("", "x", [], {}, [[]], {"": {}}, [None], {"a": [1, {"b": None}]}, "\x00", "a\x00b", "\x1f"),
)
ODD_NUMBERS = (
    *("0", "-1", "01", "+1", "1.0", "1e0", "2147483647", "2147483648", "9223372036854775808", "9" * 300, "abc", ""),
    *("1%00", "%EF%BC%91", "1/", "1%2F2", "..", "%2e%2e", "1;x", "1%20", "%ff", "%", "%zz", "null"),
)
ODD_SPELLING = "%31"
"""One, as good as any other."""
ODD_TOKENS = (
    "",
    "x",
    "x" * 43,
    "x" * 44,
    "A" * 300,
    "..",
    "%00",
    "%2F",
    "%ff%fe",
    "%F0%9F%99%82",
    "null",
    "chats",
    "1",
)
ODD_RAW_BODIES: tuple[bytes, ...] = (
    *(
        b"",
        b" ",
        b"{",
        b"}",
        b"[]",
        b"null",
        b"0",
        b'"x"',
        b"nul",
        b"{}{}",
        b"{} x",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
    ),
    *(
        b'{"body":"x","body":"y"}',
        b'{"name":"a","name":"b"}',
        b'{"body":"\\ud800"}',
        b'{"body":"\\u0000"}',
        b'{"body":"\xff"}',
    ),
    *(
        b'{"body":"\xed\xa0\x80"}',
        b"{'body':'x'}",
        b'{"body":NaN}',
        b'{"body":1e999}',
        b'{"body":"x",}',
        b'{"metadata":1e400}',
    ),
    *(
        b'{"body":"x","metadata":{"a":1e400}}',
        b'{"body":"x","metadata":{"a":1,"a":2}}',
        b'{"body":"\x01"}',
        b"\x00",
        b"\x80" * 50,
    ),
)
CONTENT_TYPES = (
    *("application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "text/plain", "application/xml", ""),
    *(
        "application/json; charset=latin-1",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "/",
        "json",
    ),
)
ODD_HEADERS = (
    *(
        "X-Request-ID: " + "r" * 129,
        "X-Request-ID: ",
        "X-Request-ID: \x80",
        "X-Request-ID: fine-1",
        "Accept: text/html",
    ),
    *(
        "Authorization: Bearer",
        "Authorization: Basic eDp5",
        "Authorization: Bearer " + "b" * 500,
        "X-Application-Token: x",
    ),
    *("Origin: http://elsewhere.example", "Cookie: a=b", "X-HTTP-Method-Override: DELETE", "Forwarded: for=1.2.3.4"),
    *("Accept-Encoding: gzip, br", "If-None-Match: *", "Range: bytes=0-1", "X-Forwarded-For: ::1", "Last-Event-ID: 1"),
)
BROKEN: tuple[bytes, ...] = (
    *(
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02",
    ),
    *(
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    *(
        b"POST /applications HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"G\x00T / HTTP/1.1\r\n\r\n",
    ),
    b"POST /applications HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /applications HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n",
    b"POST /applications HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
    b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
)


@dataclass(frozen=True)
class Operation:
    """An operation of the document."""

    name: str
    method: str
    path: str
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """A request. `operation` is None when path and method together are no operation's."""

    raw: bytes
    method: str
    target: str
    operation: Operation | None
    allowed: frozenset[int]


class Requests:
    """An endless supply. `tokens` open applications that stay; `learn` tells of others, which may be erased."""

    def __init__(self, document: Document, chance: random.Random, tokens: Sequence[str]) -> None:
        self._document = document
        self._chance = chance
        self._tokens = list(tokens)
        self._passing: deque[str] = deque(maxlen=NEW_TOKENS)
        self.operations = [
            Operation(about["operationId"], method.upper(), path, about)
            for path, methods in document["paths"].items()
            for method, about in methods.items()
        ]
        self._methods: dict[str, set[str]] = {}
        for one in self.operations:
            self._methods.setdefault(one.path, set()).add(one.method)

    def learn(self, token: str) -> None:
        """An application that was just created."""
        self._passing.append(token)

    def make(self) -> Made:
        """The next request."""
        chance, operation = self._chance, self._chance.choice(self.operations)
        method, ending = operation.method, ""
        if chance.random() < 0.04:
            method = chance.choice(METHODS)
        if chance.random() < 0.02:
            ending = chance.choice(ENDINGS)
        target = self._path(operation, method) + ending + self._query(operation)
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *self._headers(operation)]
        body = self._body(operation) if "requestBody" in operation.about or chance.random() < 0.02 else None
        raw = self._framed(lines, body)
        if method == operation.method and not ending:
            statuses = {int(status) for status in operation.about["responses"]}
            # What is not documented for the operation: its path may be another's, or none.
            return Made(raw, method, target, operation, frozenset(statuses | {404}))
        if method == "HEAD" and "GET" in self._methods[operation.path]:
            return Made(raw, method, target, None, frozenset({200, 400, 404, 429}))
        return Made(raw, method, target, None, frozenset({200, 201, 204, 400, 404, 405, 409, 413, 415, 422, 501}))

    def broken(self) -> bytes:
        """Bytes that are no request."""
        return self._chance.choice(BROKEN)

    # Parts

    def _path(self, operation: Operation, method: str) -> str:
        path = operation.path
        # An application that stays is never erased, by whatever operation's path.
        token = self._token(passing=method == "DELETE" and operation.path.count("{") == 1)
        # A stream that is really opened never ends.
        chat = self._chance.choice(ODD_NUMBERS) if operation.name == STREAM else self._number()
        for name, value in (("token", token), ("number", chat), ("message_number", self._number())):
            path = path.replace("{" + name + "}", value)
        return path

    def _token(self, *, passing: bool) -> str:
        draw = self._chance.random()
        if passing or draw < 0.08:
            return self._chance.choice(self._passing) if self._passing else "none"
        return self._chance.choice(self._tokens) if draw < 0.85 else self._chance.choice(ODD_TOKENS)

    def _number(self) -> str:
        return (
            str(self._chance.randint(1, 4))
            if self._chance.random() < 0.85
            else self._chance.choice((*ODD_NUMBERS, ODD_SPELLING))
        )

    def _query(self, operation: Operation) -> str:
        chance, parts = self._chance, []
        for parameter in operation.about["parameters"]:
            if parameter["in"] == "query" and chance.random() < (0.9 if parameter["required"] else 0.3):
                value = self._text_of(parameter["schema"])
                parts.append(f"{parameter['name']}={value if chance.random() < 0.1 else quote(value, safe='')}")
        if chance.random() < 0.03:
            parts.append(
                chance.choice(("x=1", "limit=5", "&&", "=", "q=%ff", "after=1&after=2", "%", "page=1", "token=x"))
            )
        return "?" + "&".join(parts).replace(" ", "+").replace("\r", "").replace("\n", "") if parts else ""

    def _text_of(self, schema: Mapping[str, Any]) -> str:
        chance = self._chance
        if chance.random() < 0.25:
            return quote(chance.choice(TEXTS), safe="") if chance.random() < 0.5 else chance.choice(ODD_NUMBERS)
        if schema["type"] == "integer":
            low, high = schema.get("minimum", 0), schema.get("maximum", 2**63)
            return str(chance.choice((low, high, low - 1, high + 1, chance.randint(low, min(high, low + 300)))))
        return str(chance.choice(schema["enum"])) if "enum" in schema else self._text()

    def _text(self) -> str:
        chance = self._chance
        return "".join(chance.choice(TEXTS) for _ in range(chance.randint(1, 3))) or "x"

    def _headers(self, operation: Operation) -> list[str]:
        chance, lines = self._chance, []
        named = {parameter["name"] for parameter in operation.about["parameters"] if parameter["in"] == "header"}
        if "Idempotency-Key" in named and chance.random() < 0.4:
            key = f"key-{chance.randrange(KEYS)}"
            lines.append(f"Idempotency-Key: {chance.choice((key, key, key, '', 'a b', 'x' * 256, f'{key!r}'))}")
        if operation.path.startswith("/chats/{number}") and chance.random() < 0.9:
            name = chance.choice(("Authorization: Bearer ", "X-Application-Token: "))
            lines.append(name + chance.choice(self._tokens))
        if "requestBody" in operation.about and chance.random() < 0.8:
            lines.append(f"Content-Type: {CONTENT_TYPES[0] if chance.random() < 0.9 else chance.choice(CONTENT_TYPES)}")
        if chance.random() < 0.1:
            lines.append(chance.choice(ODD_HEADERS))
        return lines

    def _framed(self, lines: list[str], body: bytes | None) -> bytes:
        chance = self._chance
        if body is None:
            return _head(lines)
        if chance.random() < 0.1:
            pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            return _head([*lines, "Transfer-Encoding: chunked"]) + chunks + b"0\r\n\r\n"
        return _head([*lines, f"Content-Length: {len(body)}"]) + body

    # Bodies

    def _body(self, operation: Operation) -> bytes:
        chance, draw = self._chance, self._chance.random()
        if draw < 0.08 or "requestBody" not in operation.about:
            return chance.choice(ODD_RAW_BODIES)
        if draw < 0.09:
            return b'{"metadata":' * (depth := chance.choice(DEPTHS)) + b"1" + b"}" * depth
        schema = operation.about["requestBody"]["content"]["application/json"]["schema"]
        value = self._value(schema)
        if chance.random() < 0.4:
            value = self._bent(value)
        text = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        if chance.random() < 0.05 and text:
            at = chance.randrange(len(text))
            return text[:at] if chance.random() < 0.5 else text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]
        return text

    def _value(self, schema: Mapping[str, Any]) -> Json:
        """A value that fits the schema, or nearly."""
        chance = self._chance
        if "$ref" in schema:
            return self._value(self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return self._value(chance.choice(schema[choice]))
        kinds: Mapping[str, Callable[[], Json]] = {
            "object": lambda: self._object(schema),
            "array": lambda: [self._value(schema["items"]) for _ in range(chance.choice((0, 1, 1, 2, 3)))],
            "string": self._long_or_short,
            "integer": lambda: chance.choice((0, 1, -1, 2**53)),
            "null": lambda: None,
        }
        return kinds.get(schema.get("type", "null"), self._odd)()

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Json]:
        chance = self._chance
        if "properties" not in schema:
            return {self._text(): self._odd() for _ in range(chance.randint(0, 3))}
        wanted = set(schema.get("required", ()))
        return {
            name: self._value(one)
            for name, one in schema["properties"].items()
            if name in wanted or chance.random() < 0.4
        }

    def _long_or_short(self) -> str:
        return "x" * BIG_BODY_BYTES if self._chance.random() < 0.001 else self._text()

    def _odd(self) -> Json:
        return self._chance.choice(ODD_VALUES)

    def _bent(self, value: Json) -> Json:
        """The same with one thing wrong: a value of another type, a field too many or too few."""
        chance = self._chance
        if isinstance(value, dict) and value and chance.random() < 0.8:
            name = chance.choice(list(value))
            how = chance.randrange(4)
            if how == 0:
                return {other: one for other, one in value.items() if other != name}
            if how == 1:
                return value | {chance.choice(("extra", "number", "token", "__proto__", "Body", "")): self._odd()}
            return value | {name: self._bent(value[name])}
        if isinstance(value, list) and value and chance.random() < 0.7:
            return [self._bent(value[0]), *value[1:]]
        return self._odd()


def _head(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass")
