"""Requests do not fail while all that can happen to servers happens at once."""

from __future__ import annotations

import pytest

import cluster_storm

pytestmark = pytest.mark.slow


async def test_no_request_is_lost_but_those_in_a_killed_process(own_runtime):
    """The short form; `python -m benchmarks.cluster_storm` is the long one."""
    port = cluster_storm.free_port()
    with cluster_storm.serving(port, "storm"):
        clients, storm = await cluster_storm.measure(
            port, "storm", 100, kills=1, reloads=1, seed=7, most=3
        )
    faults = [one for one in clients.failures if storm.cause_of(one) is None]
    assert faults == []
    assert len(storm.kills) == 2
    assert clients.answered > 100
