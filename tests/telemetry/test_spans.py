"""Jobs are spans of their caller's trace, made of the times that are known of them."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import jobs
from offloop import Pool
from offloop.errors import JobTimeout
from offloop.telemetry import spans


@pytest.fixture
def exporter(monkeypatch):
    """Collect what is traced; the program's own provider can be set once only."""
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return found


def by_name(exporter):
    found = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


async def test_a_job_is_a_span_of_its_callers_with_its_stages(exporter):
    tracer = trace.get_tracer("test")
    async with Pool(1, name="traced") as pool:
        with tracer.start_as_current_span("request") as request:
            job = pool.submit(jobs.add, 1, 1)
            assert await job == 2
        await pool.run(jobs.nothing)  # in no span: nobody would look for it
    found = by_name(exporter)
    assert set(found) == {"request", "offloop jobs.add", "offloop.queue", "offloop.run"}
    (span,) = found["offloop jobs.add"]
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.context.trace_id == request.get_span_context().trace_id
    told = {"offloop.pool": "traced", "offloop.job": job.id, "offloop.attempts": 1}
    assert dict(span.attributes) == {**told, "offloop.worker": job.worker}
    assert span.status.is_unset
    (queue,), (run,) = found["offloop.queue"], found["offloop.run"]
    assert queue.parent.span_id == run.parent.span_id == span.context.span_id
    timings = job.timings
    lasted = (run.end_time - run.start_time) / 1e9
    assert lasted == pytest.approx(timings.run, abs=1e-5)
    assert queue.start_time == span.start_time
    whole = (span.end_time - span.start_time) / 1e9
    assert whole == pytest.approx(sum(timings), abs=1e-4)
    assert run.start_time >= span.start_time - 1000
    assert run.end_time <= span.end_time + 1000


async def test_an_error_is_told_in_the_span(exporter):
    tracer = trace.get_tracer("test")
    async with Pool(1, grace=0.05) as pool:
        with tracer.start_as_current_span("request"):
            with pytest.raises(ValueError, match="bad"):
                await pool.run(jobs.raise_value_error)
            job = pool.submit(asyncio.sleep, 3600)
            with pytest.raises(JobTimeout):
                await pool.options(timeout=0.02).run(asyncio.sleep, 3600)
            job.cancel()
    found = by_name(exporter)
    (failed,) = found["offloop jobs.raise_value_error"]
    assert failed.status.description == "ValueError: bad"
    assert failed.events[0].attributes["exception.type"] == "ValueError"
    late, cancelled = found["offloop asyncio.tasks.sleep"]
    assert late.status.description.startswith("JobTimeout: job ")
    assert cancelled.attributes["offloop.ending"] == "cancelled"
    assert cancelled.status.is_unset


async def test_what_is_not_recorded_makes_no_spans(exporter):
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("test")
    async with Pool(1) as pool:
        with tracer.start_as_current_span("request"):
            await pool.run(jobs.add, 1)
    assert exporter.get_finished_spans() == ()
    assert spans.is_in_use()
