"""Two looks make a picture; the rows of a picture make a screen of any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.telemetry.tallies import FunctionStats
from offloop.top import sight
from offloop.top.drawing import View, draw, page, share_rows
from offloop.top.sight import Sight, ordered, picture


def look(**more):
    """Return what a pool tells that has done nothing yet."""
    totals = dict.fromkeys(
        ("workers", "busy", "queued", "in_flight", "refused", "arena_used"), 0
    )
    endings = dict.fromkeys(
        ("completed", "failed", "timed_out", "lost", "cancelled"), 0
    )
    return {
        "pool": "one",
        "pid": 7,
        "program": "python app.py",
        "seconds": 75.0,
        "wanted": 2,
        "stats": {**totals, **endings, "failure": "", "functions": {}, **more},
        "workers": [],
        "events": [],
        "lag": [],
    }


def worker(number, **more):
    return {
        "worker": number,
        "slot": number - 1,
        "pid": 100 + number,
        "state": "busy",
        "seconds": 3.0,
        "jobs": 1,
        "job": 55,
        "function": "app.work",
        "running": 1.5,
        "results_bytes": 0,
        **more,
    }


def of_function(**counts):
    return FunctionStats(**counts).as_dict()


def test_rates_are_what_came_between_two_looks():
    before, now = look(completed=10, failed=1), look(completed=30, failed=5)
    before["stats"]["functions"] = {"f": of_function(completed=10, failed=1)}
    now["stats"]["functions"] = {
        "f": of_function(completed=25, failed=5),
        "g": of_function(completed=5),
    }
    shown = picture(Sight(100.0, before), Sight(102.0, now))["pool"]
    assert shown["rate"] == 12.0
    rates = {one["function"]: one["rate"] for one in shown["functions"]}
    assert rates == {"f": 9.5, "g": 2.5}
    assert {one["function"]: one["errors"] for one in shown["functions"]} == {
        "f": 5,
        "g": 0,
    }
    assert "functions" not in shown["stats"]
    alone = picture(None, Sight(102.0, now))["pool"]
    assert alone["rate"] is None
    assert alone["functions"][0]["rate"] is None


def test_processor_time_is_a_share_of_a_core():
    told = look()
    told["workers"] = [worker(1), worker(2), worker(3, pid=None)]
    before = Sight(10.0, told, cpu={101: 1.0, 102: 5.0})
    now = Sight(12.0, told, cpu={101: 2.5}, rss={101: 4096})
    rows = picture(before, now)["pool"]["workers"]
    assert [one["cpu"] for one in rows] == [0.75, None, None]
    assert [one["rss"] for one in rows] == [4096, None, None]


def test_functions_are_ordered_by_what_is_asked():
    rows = [
        {"function": "a", "rate": None, "time": 3.0, "p99": 1.0, "errors": 0},
        {"function": "b", "rate": 5.0, "time": 1.0, "p99": 2.0, "errors": 0},
        {"function": "c", "rate": 1.0, "time": 2.0, "p99": 0.0, "errors": 9},
    ]
    orders = {
        order: "".join(one["function"] for one in ordered(rows, order))
        for order in sight.ORDERS
    }
    assert orders == {
        "rate": "bca",
        "time": "acb",
        "p99": "bac",
        "errors": "cab",
        "name": "abc",
    }


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=5),
    st.integers(-3, 60),
)
def test_room_is_shared_and_none_is_left_while_somebody_wants_it(wants, room):
    got = share_rows(wants, room)
    assert all(0 <= rows <= most for rows, (most, _) in zip(got, wants, strict=True))
    assert sum(got) == min(max(room, 0), sum(most for most, _ in wants))
    assert share_rows(wants, None) == [most for most, _ in wants]


def many():
    """Return a picture of a pool with more of everything than fits."""
    told = look(workers=40, busy=40, completed=1_234_567, failed=3, lost=1, queued=9)
    told["workers"] = [worker(n, function="app." + "x" * n) for n in range(1, 41)]
    told["stats"]["functions"] = {
        f"module.function_{n}": of_function(completed=n, failed=n % 2)
        for n in range(30)
    }
    told["lag"] = [0.001 * n for n in range(60)]
    told["events"] = [
        {"number": n, "at": n, "event": "job_failed", "level": 0, "text": f"event {n}"}
        for n in range(1, 101)
    ]
    serve = {
        "app": "app:app",
        "pid": 5,
        "state": "serving",
        "urls": ["http://x:1"],
        "seconds": 60.0,
        "wanted": 2,
        "failure": "",
        "ends": [],
        "coordinators": [],
        "servers": [
            {
                "slot": n,
                "pid": 50 + n,
                "state": "ready",
                "requests": 10,
                "in_hand": 1,
                "connections": 2,
                "memory": 1 << 20,
            }
            for n in range(2)
        ],
    }
    return picture(Sight(1.0, told, serve), Sight(2.0, told, serve))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (40, 12), (20, 6)])
@pytest.mark.parametrize(
    "shown", [None, many(), {"pool": None, "serve": many()["serve"]}]
)
def test_lines_fit_any_screen(size, shown):
    width, height = size
    view = View(shown, [5.0] * 200, chosen=38, silent=3.0, several=True, clock=1.0)
    lines = draw(view, width, height)
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)


def test_the_chosen_worker_is_seen_and_so_is_some_of_everything():
    text = "\n".join(line.plain for line in draw(View(many(), chosen=38), 80, 24))
    assert "▸37" in text
    for word in ("SERVERS 2 of 2", "WORKERS 40 of 2", "FUNCTIONS 30", "event 100"):
        assert word in text
    for word in ("1.23 M done", "3 failed", "1 lost", "9 wait", "59 ms"):
        assert word in text
    assert "event 1\n" not in text


def test_without_a_height_all_is_there_and_no_keys_are():
    text = "\n".join(line.plain for line in draw(View(many()), 80, None))
    assert "function_29" in text
    assert "event 1\n" in text + "\n"
    assert "quit" not in text


def test_trouble_is_said():
    told = look(failure="workers cannot start\nmore")
    lines = draw(View(picture(None, Sight(1.0, told)), silent=2.0), 80, 24)
    text = "\n".join(line.plain for line in lines)
    assert " workers cannot start\n" in text
    assert "no answer for 2.0 s" in text
    told_so = draw(View(None, message="reloaded"), 80, 24)[-1].plain
    assert told_so.strip() == "reloaded"


def test_a_page_is_a_part_of_a_text():
    text = "\n".join(f"line {n}" for n in range(100))
    lines = [line.plain for line in page("title", text, 7, 40, 10)]
    assert len(lines) == 10
    assert lines[1:9] == [f" line {n}" for n in range(7, 15)]
    assert page("title", "short", 0, 40, 10)[1].plain == " short"
