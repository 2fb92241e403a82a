"""How a command must not be called: one clear line, exit code 2, and where to read more."""

from __future__ import annotations

import sys

import pytest

from chat_system.cli import main

CALLS = {
    ("nonsense",): "No such command 'nonsense'. See chat-system --help.",
    ("--nonsense",): "No such option: --nonsense. See chat-system --help.",
    ("serve", "--nonsense"): "No such option: --nonsense. See chat-system serve --help.",
    ("serve", "now"): "Got unexpected extra argument(s) (now). See chat-system serve --help.",
    ("serve", "--port"): "Option '--port' requires an argument. See chat-system --help.",
    ("import",): "Missing argument 'FILE'. See chat-system import --help.",
    ("import", "a", "b"): "Got unexpected extra argument(s) (b). See chat-system import --help.",
    ("export",): "Missing argument 'TOKEN'. See chat-system export --help.",
    ("export", "token", "--ouput", "x"): "Got unexpected extra argument(s) (--ouput x). See chat-system export --help.",
}


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *call: str) -> str:
    """The one line that the call is refused with."""
    monkeypatch.setattr(sys, "argv", ["chat-system", *call])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (2, "")
    assert shown.err.count("\n") == 1
    return shown.err.removeprefix("chat-system: ").rstrip("\n")


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_wrong_call_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: tuple[str, ...]
) -> None:
    """What is wrong with it, and the help of the command that was meant."""
    assert refusal(monkeypatch, capsys, *call) == CALLS[call]


@pytest.mark.parametrize("port", ["eighty", "-1", "65536"])
def test_a_wrong_port_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    """It names the option."""
    assert refusal(monkeypatch, capsys, "serve", "--port", port).startswith("Invalid value for '--port': ")


@pytest.mark.parametrize(
    "call",
    [("import", "-"), ("import", "a.ndjson", "--name", "b", "--application", "c")],
    ids=["no name", "both"],
)
def test_an_import_must_know_one_application(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: tuple[str, ...]
) -> None:
    """Standard input has no name, and two applications are one too many."""
    line = refusal(monkeypatch, capsys, *call)
    assert "--name" in line
    assert "--application" in line
