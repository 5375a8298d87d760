"""`metrics_app` tells of pools, and each figure moves as what it is about."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import blocking
import jobs
from offloop import Executor, Pool
from offloop.errors import JobTimeout, PoolFull, WorkerLost
from offloop.loop_watch import watches
from offloop.telemetry import PoolCollector, metrics_app

DASHBOARD = Path(__file__).parents[2] / "examples/deploy/grafana-dashboard.json"


@contextlib.asynccontextmanager
async def asking(app):
    """Return what asks an application for its figures."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client
    for watch in watches():
        watch.stop()


def samples(text):
    """Return each sample's value, by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}"
            assert key not in found, "a series twice"
            found[key] = sample.value
    return found


class Figures:
    """Asks again and again; counts must never go back."""

    def __init__(self, client, pool):
        self._client = client
        self._pool = pool
        self._before = {}

    async def ask(self):
        response = await self._client.get("/metrics")
        assert response.status_code == 200
        now = samples(response.text)
        for key, value in self._before.items():
            if re.match(r"\w+_(total|bucket|count|sum)\b", key):
                assert now.get(key, -1) >= value, f"{key} has gone back"
        self._before = now
        return now

    async def of(self, name, **labels):
        labels = {"pool": self._pool, **labels}
        told = ",".join(f"{k}={v}" for k, v in sorted(labels.items()))
        return (await self.ask())[f"{name}{{{told}}}"]


@pytest.mark.slow
async def test_each_figure_moves_as_what_it_is_about(gate):
    reached, leave = gate(), gate()
    pool = Pool(2, name="all", max_pending=4, grace=0.05, slow_job=1e-6)
    async with asking(metrics_app(pool)) as client, pool:
        await pool.ready()
        figures = Figures(client, "all")
        of = figures.of

        async def job(name, function, **labels):
            return await of(f"offloop_job_{name}", function=function, **labels)

        assert await of("offloop_workers", state="idle") == 2
        assert await of("offloop_worker_utilization") == 0

        # jobs that run, and jobs that wait
        meet = [pool.submit(jobs.meet, str(reached), str(leave)) for _ in range(2)]
        await reached.reached()
        waiting = [pool.submit(jobs.add, 1, 1), pool.submit(jobs.nothing)]
        with pytest.raises(PoolFull):
            pool.submit(jobs.add, 2, 2)
        assert await of("offloop_queue_length") == 2
        assert await of("offloop_jobs_in_flight") == 2
        assert await of("offloop_worker_utilization") == 1
        assert await of("offloop_workers", state="busy") == 2
        assert await of("offloop_workers", state="idle") == 0
        assert await job("refusals_total", "jobs.add") == 1
        waiting[1].cancel()
        leave.open()
        await asyncio.gather(*meet, waiting[0])
        assert await of("offloop_queue_length") == 0
        assert await of("offloop_jobs_in_flight") == 0

        # how they have ended
        ended = {"function": "jobs.meet", "ending": "completed"}
        assert await of("offloop_jobs_total", **ended) == 2
        ended = {"function": "jobs.nothing", "ending": "cancelled"}
        assert await of("offloop_jobs_total", **ended) == 1
        with pytest.raises(ValueError, match="bad"):
            await pool.run(jobs.raise_value_error)
        ended = {"function": "jobs.raise_value_error", "ending": "failed"}
        assert await of("offloop_jobs_total", **ended) == 1
        with pytest.raises(JobTimeout):
            await pool.options(run_timeout=0.02).run(jobs.loop_in_python, str(reached))
        assert await job("timeouts_total", "jobs.loop_in_python") == 1
        with pytest.raises(WorkerLost):
            await pool.options(retries=1).run(jobs.die_by, signal.SIGKILL)
        assert await job("retries_total", "jobs.die_by") == 1
        ended = {"function": "jobs.die_by", "ending": "lost"}
        assert await of("offloop_jobs_total", **ended) == 1
        assert await of("offloop_worker_restarts_total", reason="crashed") == 2
        assert await of("offloop_worker_restarts_total", reason="timed-out") == 1
        assert await of("offloop_workers_lost_total") == 2
        assert await of("offloop_workers_started_total") >= 5
        assert await job("slow_runs_total", "jobs.meet") == 2

        # how long they took
        for name in ("wait", "run", "transfer"):
            assert await job(f"{name}_seconds_count", "jobs.add") == 1
            assert await job(f"{name}_seconds_bucket", "jobs.add", le="+Inf") == 1
        told = pool.stats().functions["jobs.meet"].run.total
        assert await job("run_seconds_sum", "jobs.meet") == pytest.approx(told)

        # memory: a series for each place, whoever is in it
        await pool.ready()
        now = await figures.ask()
        for what in ("rss", "pss", "results"):
            name = f"offloop_worker_{what}_bytes"
            places = [key for key in now if key.startswith(name + "{")]
            assert len(places) == 2, places
        assert await of("offloop_worker_rss_bytes", worker="0") > 1e6
        assert now["offloop_worker_pss_bytes{pool=all,worker=0}"] > 0
        assert await of("offloop_arena_bytes") == 0
        array = pool.empty(100_000, "uint8")
        assert await of("offloop_arena_bytes") >= 100_000
        assert await of("offloop_arena_limit_bytes") > 1e6
        del array
        await pool.run(bytes, 2_000_000)
        now = await figures.ask()
        held = "offloop_worker_results_bytes{pool=all,worker=%d}"
        assert sum(now[held % place] for place in (0, 1)) >= 2_000_000

        # the loop
        assert "offloop_loop_blocked_total{}" in now
        blocking.sleep()
        async with asyncio.timeout(60):
            while not (await figures.ask())["offloop_loop_blocked_total{}"]:
                pass  # the watch's thread judges, and the loop counts
        late = "offloop_loop_lag_seconds"
        now = await figures.ask()
        assert now[late + "_bucket{le=+Inf}"] - now[late + "_bucket{le=0.1}"] >= 1
        assert now[late + "_count{}"] == now[late + "_bucket{le=+Inf}"]


async def test_pending_bytes_are_told_where_they_are_counted(gate):
    leave = gate()
    pool = Pool(1, name="bytes", max_pending_bytes="1MiB")
    async with pool, asking(metrics_app(pool, watch=False)) as client:
        job = pool.submit(jobs.wait_for, str(leave))
        other = pool.submit(len, "x" * 5000)
        figures = Figures(client, "bytes")
        assert await figures.of("offloop_queue_bytes") >= 5000
        leave.open()
        await asyncio.gather(job, other)
        assert await figures.of("offloop_queue_bytes") == 0


async def test_counts_stay_when_a_pool_is_closed_and_another_takes_its_name():
    async with asking(metrics_app(watch=False)) as client:
        figures = Figures(client, "again")
        done = {"function": "jobs.add", "ending": "completed"}
        for count in (1, 2):
            async with Pool(1, name="again") as pool:
                await pool.run(jobs.add, 1)
                assert await figures.of("offloop_jobs_total", **done) == count
            assert await figures.of("offloop_jobs_total", **done) == count
            assert await figures.of("offloop_workers", state="idle") == 0
        async with Pool(1, name="again") as one, Pool(1, name="again") as two:
            await asyncio.gather(one.run(jobs.add, 1), two.run(jobs.add, 1))
            assert await figures.of("offloop_jobs_total", **done) == 4
            assert await figures.of("offloop_workers", state="idle") == 2


async def test_pools_of_executors_and_other_loops_are_told_of():
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as threads:
        executor = Executor(1, name="thread")
        async with asking(metrics_app(watch=False)) as client:
            job = executor.submit(jobs.add, 1, 1)
            assert await asyncio.wrap_future(job) == 2
            done = {"function": "jobs.add", "ending": "completed"}
            figures = Figures(client, "thread")
            assert await figures.of("offloop_jobs_total", **done) == 1
            await loop.run_in_executor(threads, executor.shutdown)
            assert await figures.of("offloop_jobs_total", **done) == 1


async def test_formats_and_methods():
    own = CollectorRegistry()
    Gauge("mine", "Of the program.", registry=own).set(7)
    pool = Pool(1, name="formats", engine="inline")
    app = metrics_app(pool, registry=own, watch=False)
    async with pool, asking(app) as client:
        await pool.run(jobs.add, 1)
        plain = await client.get("/")
        assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert samples(plain.text)["mine{}"] == 7
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        modern = await client.get("/", headers=accept)
        assert "openmetrics" in modern.headers["content-type"]
        families = openmetrics.text_string_to_metric_families(modern.text)
        assert "offloop_jobs" in {family.name for family in families}
        head = await client.head("/")
        assert head.status_code == 200
        assert head.text == ""
        refused = await client.post("/")
        assert refused.status_code == 405
        assert refused.headers["allow"] == "GET, HEAD"


async def test_it_can_be_served_alone():
    app = metrics_app(watch=False)
    asked = iter(["lifespan.startup", "lifespan.shutdown"])
    answered = []

    async def receive():
        return {"type": next(asked)}

    async def send(message):
        answered.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert answered == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(RuntimeError, match="HTTP only"):
        await app({"type": "websocket"}, receive, send)


async def test_a_registry_may_have_a_pool_among_others():
    own = CollectorRegistry()
    async with Pool(1, name="mine") as pool:
        await pool.run(os.getpid)
        own.register(PoolCollector(pool))
        name, labels = "offloop_workers", {"pool": "mine", "state": "idle"}
        assert own.get_sample_value(name, labels) == 1
        place = {"pool": "mine", "worker": "0"}
        assert own.get_sample_value("offloop_worker_rss_bytes", place) > 1e6
        assert own.get_sample_value("offloop_worker_pss_bytes", place) is None


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
async def test_promtool_has_nothing_to_say():
    async with Pool(1, name="lint") as pool, asking(metrics_app(pool)) as client:
        await pool.run(jobs.add, 1)
        text = (await client.get("/")).content
        text = (await client.get("/")).content
    check = partial(subprocess.run, input=text, capture_output=True, timeout=60)
    done = await asyncio.to_thread(check, ["promtool", "check", "metrics"])
    assert done.stdout + done.stderr == b""
    assert done.returncode == 0


async def test_the_dashboard_asks_for_what_is_told():
    async with Pool(1) as pool, asking(metrics_app(pool)) as client:
        await pool.run(jobs.add, 1)
        text = (await client.get("/")).text
        told = {key.partition("{")[0] for key in samples(text)}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {
        name
        for panel in panels
        for target in panel.get("targets", ())
        for name in re.findall(r"\boffloop_\w+", target["expr"])
    }
    assert len(asked) > 15
    assert asked <= told
