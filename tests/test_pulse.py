"""The end of Ray's control process, and its return, as a socket that nobody listens at shows them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from orchestrator import pulse
from orchestrator.pulse import Pulse
from tests.told import Told, until


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "EVERY", 0.02)
    monkeypatch.setattr(pulse, "SOON", 0.1)
    monkeypatch.setattr(pulse, "GONE", 0.3)


@pytest.fixture
def head() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listening:
        yield listening


@pytest.mark.usefixtures("quick")
def test_a_control_process_that_goes_and_comes_back_is_spoken_of_once_each(head: socket.socket) -> None:
    address, told = f"127.0.0.1:{head.getsockname()[1]}", Told()
    felt = Pulse(address, told)
    time.sleep(0.5)
    assert (felt.trouble(), told.sentences) == ("", [])
    head.close()
    until(lambda: felt.trouble() != "")
    assert felt.trouble().startswith(f"Ray's control process at {address} is gone (0 s without an answer)")
    (sentence,) = told.sentences
    assert "give the same command: it goes on from the last step" in sentence
    with socket.create_server(("127.0.0.1", int(address.split(":")[1])), backlog=1000):
        until(lambda: felt.trouble() == "" and len(told.sentences) == 2)
        assert told.sentences[1] == f"Ray's control process at {address} is back"
        felt.stop()


def test_an_address_with_brackets_is_understood(head: socket.socket) -> None:
    assert Pulse("[::1]:6379", Told()).where == ("::1", 6379)
    assert pulse.beats(head.getsockname())
    head.close()
    assert not pulse.beats(("127.0.0.1", 1))
