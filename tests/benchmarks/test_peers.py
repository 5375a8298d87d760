"""Each peer that is installed does what a measurement asks of it, in a fresh process.

Those that start in seconds are tried with OFFLOOP_HEAVY_PEERS=1 only.
"""

from __future__ import annotations

import os

import pytest

import peers
from harness.turns import Order, alone

PEERS = [
    name
    for name in peers.PEERS
    if name not in peers.HEAVY or os.environ.get("OFFLOOP_HEAVY_PEERS")
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_calls_gathers_maps_and_closes(name):
    found = alone(Order("harness.trial", name, {}), 60)
    if "is not installed" in found.get("cannot", ""):
        pytest.skip(found["cannot"])
    assert found["call"] == 4
    assert found["gather"] == [2, 4, 6]
    assert found.get("submit", 8) == 8
    assert found["map"] in (9900, None)


def test_every_peer_has_its_place():
    assert set(peers.HEAVY) <= set(peers.PEERS)
    assert peers.ALL[0] == "offloop"
    assert len(peers.ALL) == 15


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    gone = ("ipyparallel", "NoSuchClass", None)
    monkeypatch.setitem(peers.PEERS, "gone", ("no_such_module", *gone[1:]))
    with pytest.raises(peers.CannotDo, match=r"is not installed.*no_such_module"):
        peers.load("gone")
    assert peers.version("gone") is None
