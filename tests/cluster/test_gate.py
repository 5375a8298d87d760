"""Who takes a connection: loads, the gate, and addresses."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from offloop.cluster.binding import bind
from offloop.cluster.gate import Gate
from offloop.cluster.loads import Field, Loads, make_page
from offloop.errors import StartError, UsageError


@pytest.fixture
def loads():
    page = make_page()
    one = Loads(page)
    os.close(page)
    one.reach(4)
    yield one
    one.close()


def test_who_has_less_to_do_goes_first_then_who_has_taken_fewer(loads):
    for seat in range(3):
        loads.sit_down(seat)
    assert [loads.ahead_of(seat) for seat in range(3)] == [0, 0, 0]
    loads.add(0, Field.TAKEN)
    loads.add(1, Field.WORK)
    assert [loads.ahead_of(seat) for seat in range(3)] == [1, 2, 0]
    loads.write(2, Field.OPEN, 0)  # it is about to go
    assert loads.ahead_of(1) == 1
    loads.sit_down(3)
    assert loads.read(3, Field.TAKEN) == 1  # it does not have to catch up
    loads.clear(0)
    assert loads.read(0, Field.OPEN) == 0


async def test_one_connection_at_a_time_until_its_request_has_begun(loads):
    bound = bind("127.0.0.1:0")
    came = asyncio.Queue()

    async def welcome(connection, private):
        came.put_nowait(connection)

    gate = Gate([bound.socket.dup()], welcome, loads, 0)
    gate.open()
    where = bound.socket.getsockname()
    clients = [socket.create_connection(where) for _ in range(4)]
    servers = [await came.get()]
    await asyncio.sleep(0)
    assert came.empty()
    assert loads.read(0, Field.WORK) == 1
    gate.request_begun()
    gate.request_begun()
    servers += [await came.get(), await came.get()]  # the third came by patience alone
    gate.close(take_waiting=True)
    gate.open()  # too late
    servers.append(await came.get())
    assert loads.read(0, Field.WORK) == loads.read(0, Field.OPEN) == 0
    for one in (*clients, *servers):
        one.close()
    bound.close()


async def test_a_server_with_more_to_do_takes_what_nobody_else_takes(loads):
    bound = bind("127.0.0.1:0")
    came = asyncio.get_running_loop().create_future()

    async def welcome(connection, private):
        came.set_result(connection)
        raise ConnectionResetError

    loads.sit_down(1)
    gate = Gate([bound.socket.dup()], welcome, loads, 0)
    gate.open()
    loads.add(0, Field.WORK, 5)
    with socket.create_connection(bound.socket.getsockname()) as client:
        await came
        gate.close()
        assert await asyncio.to_thread(client.recv, 1) == b""
    bound.close()


def test_addresses():
    for text in ("8000", "host:", "a:99999", "x:y"):
        with pytest.raises(UsageError, match="no address"):
            bind(text)
    with pytest.raises(StartError, match="nobody can listen at no such host:1"):
        bind("no such host:1")
    with pytest.raises(StartError, match="nobody can listen at unix:/no/such/place"):
        bind("unix:/no/such/place")
    one = bind("localhost:0", "https")
    assert one.url.startswith("https://")
    one.close()


def test_a_path_is_taken_over_when_stale_and_not_while_somebody_listens(tmp_path):
    address = f"unix:{tmp_path}/s"
    one = bind(address)
    with pytest.raises(StartError, match="in use"):
        bind(address)
    one.socket.close()
    two = bind(address)
    one.close()  # not its path any more
    assert os.path.exists(two.path)
    two.close()
    assert not os.path.exists(two.path)
    (tmp_path / "s").write_text("a file of somebody")
    with pytest.raises(StartError, match="in use"):
        bind(address)
