"""A wrong address of a cluster is told at once, before anything of Ray is asked."""

from __future__ import annotations

import socket

import pytest

from orchestrator import joining
from orchestrator.recipe import Workers


def test_the_recipes_address_comes_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert joining.wanted(Workers()).address == ""
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert joining.wanted(Workers()) == ("head:6379", "RAY_ADDRESS")
    assert joining.wanted(Workers(address="other:6379")) == ("other:6379", "workers.address")


@pytest.mark.parametrize(
    "address", ["head", "head:", ":6379", "ray://head:10001", "head:port", "http://head:8265", "[::1]"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"^workers\.address: .* is no address of a Ray cluster; HOST:PORT"):
        joining.check(joining.Wanted(address, "workers.address"))


def test_an_address_where_nobody_answers_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        joining.check(joining.Wanted(address, "RAY_ADDRESS"))
    for closed in (address, "127.0.0.1:99999", "nowhere.invalid:6379"):
        with pytest.raises(ValueError, match=rf"^RAY_ADDRESS: nobody answers at {closed} \("):
            joining.check(joining.Wanted(closed, "RAY_ADDRESS"))


@pytest.mark.parametrize("address", ["", "auto"])
def test_a_local_cluster_needs_no_answer(address: str) -> None:
    joining.check(joining.Wanted(address, "RAY_ADDRESS"))
