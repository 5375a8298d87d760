"""Something costly that each worker makes once and keeps: a model, a connection.

`preload` names modules that are imported once, before workers are forked from there, so
that every worker has them at no cost. `initializer` runs once in each worker.

Prints:

    opened: 1 time
    answers: ['hello, ann', 'hello, bob', 'hello, cid']
"""

import asyncio
import sqlite3

from offloop import Pool

database: sqlite3.Connection
opened = 0


def open_database(greeting: str) -> None:
    global database, opened
    database = sqlite3.connect(":memory:")
    database.execute("create table greetings (word text)")
    database.execute("insert into greetings values (?)", [greeting])
    opened += 1


def greet(name: str) -> str:
    (word,) = database.execute("select word from greetings").fetchone()
    return f"{word}, {name}"


def times_opened() -> int:
    return opened


async def main() -> None:
    pool = Pool(
        max_workers=1,
        preload=["sqlite3"],
        initializer=open_database,
        initargs=("hello",),
    )
    async with pool:
        answers = [answer async for answer in pool.map(greet, ["ann", "bob", "cid"])]
        print("opened:", await pool.run(times_opened), "time")
        print("answers:", answers)


asyncio.run(main())
