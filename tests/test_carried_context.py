"""A job sees the context variables of its caller, and its changes stay with it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import subprocess
import sys
import threading

import pytest

import jobs_context as seen
import jobs_context_late
from offloop import Batch, Executor, Pool, offload
from offloop.wire import carried, variables

ENGINES = pytest.mark.parametrize("engine", ["local", "inline"])


@ENGINES
async def test_each_face_shows_the_context_of_its_caller(engine):
    async with Pool(1, engine=engine) as pool:
        assert await pool.run(seen.see) == "none"
        seen.request.set("r1")
        assert await pool.run(seen.see) == "r1"
        assert await pool.submit(seen.see) == "r1"
        assert await pool.run(seen.see_later) == "r1"
        with pytest.raises(ValueError, match="r1"):
            await pool.run(seen.fail_and_see)
        mapped = pool.map(seen.see, range(100))
        seen.request.set("r2")  # too late for the map
        assert [each async for each in mapped] == ["r1"] * 100
        assert await pool.options(timeout=60, priority=1).run(seen.see) == "r2"


@ENGINES
async def test_what_a_job_changes_stays_with_it(engine):
    seen.request.set("mine")
    async with Pool(1, engine=engine) as pool:
        assert await pool.run(seen.change, "its own") == "mine"
        assert seen.request.get() == "mine"
        assert await pool.run(seen.see) == "mine"
        assert await contextvars.Context().run(pool.submit, seen.see) == "none"


@ENGINES
async def test_what_can_travel_does_and_the_rest_stays(engine):
    seen.request.set("r")
    seen.Holder.hidden.set("here only")
    async with Pool(1, engine=engine) as pool:
        for value in ({"name": "ann"}, ("a", 1), 1.5, None, b"x"):
            seen.user.set(value)
            found = await pool.run(seen.see_all)
            assert found[:3] == ("r", value, "as it was")
        changing = [1]
        seen.user.set(changing)
        assert (await pool.run(seen.see_all))[1] == [1]
        changing.append(2)  # the same object, with another content
        assert (await pool.run(seen.see_all))[1] == [1, 2]
        for value in (threading.Lock(), bytes(100_000), [bytes(100_000)]):
            seen.user.set(value)
            assert (await pool.run(seen.see_all))[:3] == ("r", None, "as it was")
        seen.user.set([3])
        assert (await pool.run(seen.see_all))[1] == [3]


async def test_what_stays_is_said_once_at_debug_level(caplog):
    caplog.set_level(logging.DEBUG, logger="offloop")
    hidden, stuck = contextvars.ContextVar("hidden one"), seen.stuck

    class Unpicklable:
        def __reduce__(self):
            raise TypeError("not this one")

    hidden.set("x")
    stuck.set(Unpicklable())
    async with Pool(1, engine="inline") as pool:
        for _ in range(3):
            assert await pool.run(seen.see) == "none"
    said = [record.getMessage() for record in caplog.records]
    assert sum("hidden one" in line and "not a global" in line for line in said) == 1
    assert sum("'stuck'" in line and "not this one" in line for line in said) == 1


@pytest.mark.slow
async def test_variables_of_modules_that_the_job_imports_are_there_then():
    jobs_context_late.late.set("in time")
    seen.request.set("r")
    name = jobs_context_late.__name__
    async with Pool(1, preload=["jobs_context"]) as pool:
        assert await pool.run(seen.see_in_a_late_import, name) == "in time"
        assert await pool.run(seen.see_in_a_late_import, name) == "had it"
        assert await contextvars.Context().run(pool.submit, seen.see) == "none"


async def test_calls_that_run_together_see_the_context_of_the_first(lend):
    batch = Batch(max_size=2, max_wait=60)
    async with lend() as pool:
        both = pool.options(batch=batch)

        async def call(value):
            seen.request.set(value)
            return await both.run(seen.see_each, value)

        found = await asyncio.gather(call("first"), call("second"))
        assert found == [("first", "first"), ("first", "second")]

        async def share(value):
            seen.request.set(value)
            return await pool.options(single_flight=True).run(seen.see)

        assert await asyncio.gather(share("a"), share("b")) == ["a", "a"]


def test_an_executor_shows_the_context_of_the_calling_thread():
    with Executor(1) as executor:

        def call(value):
            seen.request.set(value)
            mapped = executor.map(seen.see, range(3))
            one = executor.submit(seen.see)
            seen.request.set("later")
            return one.result(), list(mapped)

        for value in "ab":
            assert contextvars.Context().run(call, value) == (value, [value] * 3)
        assert executor.submit(seen.see).result() == "none"


async def test_retries_and_offloaded_functions_keep_the_context():
    function = offload(seen.see)
    seen.request.set("deco")
    assert await function() == "deco"
    assert await function.submit() == "deco"
    assert [each async for each in function.map([1])] == ["deco"]


SCRIPT = """
import asyncio, json
from contextvars import ContextVar
from offloop import Pool

request = ContextVar("request", default="none")
bare = ContextVar("bare")

def see():
    return request.get(), bare.get("no default")

async def see_by_argument(variable):
    return variable.get()

async def main():
    async with Pool(1) as pool:
        found = [await pool.run(see)]
        request.set("script")
        found.append(await pool.run(see))
        found.append(await pool.run(lambda: request.get()))
        found.append(await pool.run(see_by_argument, request))
        bare.set("b")
        found.append(await pool.run(see))
        print(json.dumps(found))

asyncio.run(main())
"""


@pytest.mark.slow
def test_variables_of_a_script_travel_too():
    out = subprocess.check_output([sys.executable, "-c", SCRIPT], text=True)
    assert json.loads(out) == [
        ["none", "no default"],
        ["script", "no default"],
        "script",
        "script",
        ["script", "b"],
    ]


def test_a_context_without_variables_is_nothing_to_carry():
    def set_and_reset():
        token = seen.request.set("x")
        assert carried.capture() is not None
        seen.request.reset(token)
        return carried.capture()

    assert contextvars.Context().run(carried.capture) is None
    assert contextvars.Context().run(set_and_reset) is None


def test_all_places_of_a_variable_are_known():
    places = variables.places_of(seen.request)
    assert ("jobs_context", "request") in places
    assert variables.find(places) is seen.request
    assert variables.places_of(seen.Holder.hidden) == ()
    assert variables.find((("no_such_module", "x"), ("sys", "path"))) is None


@pytest.mark.slow
@ENGINES
async def test_the_span_of_the_caller_is_current_inside_of_the_job(engine):
    from opentelemetry import baggage, context
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")
    async with Pool(1, engine=engine) as pool:
        if engine == "local":
            assert not await pool.run(seen.has_telemetry)
        with tracer.start_as_current_span("outer") as span:
            token = context.attach(baggage.set_baggage("who", "ann"))
            of_span = span.get_span_context()
            ids = f"{of_span.trace_id:032x}", f"{of_span.span_id:016x}"
            # It is not imported unasked; the job finds it in the moment when it asks.
            if engine == "local":
                assert not await pool.run(seen.has_telemetry)
            assert await pool.run(seen.see_span) == (*ids, "ann")
            assert await pool.run(seen.see_span) == (*ids, "ann")
            found = [each async for each in pool.map(lambda _: seen.see_span(), "ab")]
            assert found == [(*ids, "ann")] * 2
            context.detach(token)
        assert await pool.run(seen.see_span) == ("0" * 32, "0" * 16, None)
