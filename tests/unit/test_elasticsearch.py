"""What is sent to Elasticsearch, and what is made of whatever answers in its place."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chat_system.errors import ConfigurationError, Unavailable
from chat_system.model import ApplicationId, MessageChanged
from chat_system.ports import Entry
from chat_system.stack.elasticsearch import Elasticsearch, Failure, Missing, Refused, Starting
from chat_system.stack.search import StackSearch

ITSELF = "x-elastic-product: Elasticsearch"
COMPATIBLE = "application/vnd.elasticsearch+{}; compatible-with=8"
ASK = """
import asyncio, sys
from chat_system.stack.elasticsearch import Elasticsearch
async def ask():
    elasticsearch = Elasticsearch(sys.argv[1])
    try:
        print(await elasticsearch.ask("GET", "/"))
    finally:
        await elasticsearch.close()
asyncio.run(ask())
"""


class Answering:
    """A server that says one thing to everybody and keeps what it was told."""

    def __init__(self, status: str, body: str, *headers: str) -> None:
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.port = 0
        said = body.encode(errors="surrogateescape")
        lines = (f"HTTP/1.1 {status}", f"content-length: {len(said)}", "connection: close", *headers, "", "")
        self._answer = "\r\n".join(lines).encode() + said

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Answering]:
        """It listens inside the block."""
        server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=tls)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next((line for line in head.lower().split("\r\n") if line.startswith("content-length:")), ":0")
            self.heads.append(head)
            self.bodies.append(await reader.readexactly(int(length.partition(":")[2])))
            writer.write(self._answer)
            await writer.drain()
        finally:
            writer.close()

    def sent(self, header: str) -> str | None:
        """The latest request's header of this name."""
        for line in self.heads[-1].split("\r\n")[1:]:
            name, _, value = line.partition(": ")
            if name.lower() == header:
                return value
        return None


@asynccontextmanager
async def asking(address: str) -> AsyncIterator[Elasticsearch]:
    """Elasticsearch at this address, closed afterwards."""
    elasticsearch = Elasticsearch(address)
    try:
        yield elasticsearch
    finally:
        await elasticsearch.close()


async def failure(status: str, body: str, *headers: str) -> BaseException:
    """What a request ends with that is answered like this."""
    async with (
        Answering(status, body, *headers).running() as server,
        asking(f"http://127.0.0.1:{server.port}") as elasticsearch,
    ):
        with pytest.raises((Failure, Unavailable)) as found:
            await elasticsearch.ask("GET", "/x")
    return found.value


async def test_a_request_says_who_asks_and_which_answers_it_understands() -> None:
    """The account of the address, decoded; the address's own path; version 8's form; parameters as they are spelled."""
    async with (
        Answering("200 OK", '{"a":1}', ITSELF).running() as server,
        asking(f"http://us%3Aer:p%C3%A4ss%40word@127.0.0.1:{server.port}/behind/") as elasticsearch,
    ):
        assert await elasticsearch.ask("POST", "/x/_search", {"size": 0}, routing=7, lenient=False, some="a,b*") == {
            "a": 1
        }
        assert server.heads[-1].startswith("POST /behind/x/_search?routing=7&lenient=false&some=a,b* HTTP/1.1\r\n")
        assert server.sent("authorization") == f"Basic {base64.b64encode('us:er:päss@word'.encode()).decode()}"
        assert server.sent("accept") == server.sent("content-type") == COMPATIBLE.format("json")
        assert server.sent("accept-encoding") is None
        assert server.bodies == [b'{"size":0}']
        await elasticsearch.ask("POST", "/_bulk", b'{"index":{}}\n{}\n')
        assert server.sent("content-type") == COMPATIBLE.format("x-ndjson")
        assert server.bodies[-1] == b'{"index":{}}\n{}\n'
        await elasticsearch.ask("GET", "/x")
        assert server.sent("content-type") is None


async def test_an_address_without_an_account_sends_none() -> None:
    """Nor does anything of the machine's own settings add one."""
    async with (
        Answering("200 OK", "{}", ITSELF).running() as server,
        asking(f"http://127.0.0.1:{server.port}") as elasticsearch,
    ):
        await elasticsearch.ask("GET", "/")
    assert server.sent("authorization") is None


@pytest.mark.parametrize(
    ("status", "kind", "becomes"),
    [
        ("404 Not Found", "index_not_found_exception", Missing),
        ("400 Bad Request", "mapper_parsing_exception", Refused),
        ("413 Request Entity Too Large", "too_large", Refused),
        ("400 Bad Request", "index_closed_exception", Unavailable),
        ("401 Unauthorized", "security_exception", Unavailable),
        ("429 Too Many Requests", "es_rejected_execution_exception", Unavailable),
        ("500 Internal Server Error", "null_pointer_exception", Unavailable),
        ("503 Service Unavailable", "search_phase_execution_exception", Starting),
        ("429 Too Many Requests", "search_phase_execution_exception", Unavailable),
        ("500 Internal Server Error", "search_phase_execution_exception", Unavailable),
    ],
)
async def test_each_failure_is_told_apart(status: str, kind: str, becomes: type[Exception]) -> None:
    """By its status and its kind; the reason of its first cause is kept for the operator."""
    error = f'{{"type":"{kind}","reason":"all failed","root_cause":[{{"type":"x","reason":"the reason"}}]}}'
    found = await failure(status, f'{{"error":{error},"status":{status[:3]}}}', ITSELF)
    assert type(found) is becomes
    told = found if isinstance(found, Failure) else found.__cause__
    assert str(told) == f"{status[:3]} {kind}: the reason"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"error":"no handler found","status":502}', "502 no handler found"),
        ('{"error":{"type":"x_exception","reason":null,"root_cause":[]}}', "502 x_exception"),
        ("<html>nginx</html>", "502 Bad Gateway"),
        ('{"message":"no"}', "502 Bad Gateway"),
        ("", "502 Bad Gateway"),
    ],
)
async def test_a_failure_in_any_form_is_told_in_few_words(body: str, told: str) -> None:
    """What stands in front of Elasticsearch has other forms, and pages of its own."""
    found = await failure("502 Bad Gateway", body)
    assert isinstance(found, Unavailable)
    assert found.detail == f"Elasticsearch is away ({told})."


async def test_a_document_that_is_not_there_is_missing() -> None:
    """That answer has no error in it."""
    assert isinstance(await failure("404 Not Found", '{"_id":"1","found":false}', ITSELF), Missing)


@pytest.mark.parametrize(("body", "headers"), [('{"hits":{}}', ()), ("<html>welcome</html>", (ITSELF,))])
async def test_success_that_is_not_of_elasticsearch_is_unavailable(body: str, headers: tuple[str, ...]) -> None:
    """An address that belongs to something else never reads as nothing found."""
    assert isinstance(await failure("200 OK", body, *headers), Unavailable)


@pytest.mark.parametrize("status", ["404 Not Found", "400 Bad Request", "413 Request Entity Too Large"])
async def test_a_failure_that_is_not_of_elasticsearch_is_unavailable(status: str) -> None:
    """A proxy that knows no way to it neither says that something is missing, nor blames what was asked."""
    assert type(await failure(status, "default backend")) is Unavailable


async def test_bytes_that_are_no_text_are_unavailable() -> None:
    """In a success as in a failure."""
    assert type(await failure("200 OK", '{"a":"\udcff"}', ITSELF)) is Unavailable
    assert type(await failure("502 Bad Gateway", '{"error":"\udcff"}', ITSELF)) is Unavailable


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        ("404 Not Found", "default backend", ()),
        ("400 Bad Request", "<html>The plain HTTP request was sent to HTTPS port</html>", ()),
        ("400 Bad Request", '{"error":{"type":"validation_exception","reason":"too many shards"}}', (ITSELF,)),
        ("404 Not Found", '{"error":{"type":"index_not_found_exception","reason":"gone"}}', (ITSELF,)),
    ],
)
async def test_what_is_no_message_s_fault_is_waited_for(status: str, body: str, headers: tuple[str, ...]) -> None:
    """A request that is refused as a whole says nothing of the documents in it: none is set aside for it."""

    async def known(*_: int) -> None:
        return

    entries = [Entry("0/1-1/1", ApplicationId(1), 1, MessageChanged(1, 1, None, "text", None, 1_000))]
    async with (
        Answering(status, body, *headers).running() as server,
        asking(f"http://127.0.0.1:{server.port}") as elasticsearch,
    ):
        with pytest.raises(Unavailable):
            await StackSearch(elasticsearch, "messages", known, known).apply(entries)


async def test_an_answer_that_does_not_come_is_unavailable_in_time() -> None:
    """The sentence names the time, and has no empty cause for the operator to read."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with asking(f"http://127.0.0.1:{silent.getsockname()[1]}") as elasticsearch:
            with pytest.raises(Unavailable, match=r"not answered for 0\.05 s") as found:
                await elasticsearch.ask("GET", "/", timeout_s=0.05)
    assert found.value.__cause__ is None


async def test_an_answer_that_is_cut_off_is_unavailable() -> None:
    """The cause says what happened."""
    cut = Answering("200 OK", "{}", ITSELF, "content-length: 100")
    cut._answer = cut._answer.replace(b"content-length: 2\r\n", b"")  # noqa: SLF001 - half an answer
    async with cut.running() as server, asking(f"http://127.0.0.1:{server.port}") as elasticsearch:
        with pytest.raises(Unavailable) as found:
            await elasticsearch.ask("GET", "/")
    assert found.value.__cause__ is not None


async def test_a_warning_of_elasticsearch_is_seen() -> None:
    """What the next version drops is noticed here, by the tests that run on the real one."""
    async with (
        Answering("200 OK", "{}", ITSELF, 'warning: 299 Elasticsearch-8 "[x] is deprecated"').running() as server,
        asking(f"http://127.0.0.1:{server.port}") as elasticsearch,
    ):
        with pytest.warns(UserWarning, match="is deprecated"):
            await elasticsearch.ask("GET", "/")


@pytest.mark.parametrize("address", ["http://search.example", "http://search.example:none", "http://:9200"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """It is the operator's to mend."""
    with pytest.raises(ConfigurationError, match="CHAT_ELASTICSEARCH_URL"):
        Elasticsearch(address)


def certificate(folder: Path, *names: x509.GeneralName) -> Path:
    """A certificate for these names that vouches for itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "search")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "search.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize("trusted", [True, False])
async def test_over_https_only_who_is_vouched_for_is_believed(tmp_path: Path, trusted: bool) -> None:
    """By an authority of the machine's, or of the file that the operator names as to any program."""
    file = certificate(tmp_path, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(file)
    environment = os.environ | ({"SSL_CERT_FILE": str(file)} if trusted else {})
    async with Answering("200 OK", '{"found":1}', ITSELF).running(tls) as server:
        command = [sys.executable, "-c", ASK, f"https://127.0.0.1:{server.port}"]
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )
    assert ("{'found': 1}" in ended.stdout) is trusted
    assert ("Elasticsearch is away" in ended.stderr) is not trusted
