"""What holds an event loop for a while, in several ways; tests look for the lines."""

from __future__ import annotations

import json
import time


def sleep():
    time.sleep(0.25)  # the sleep


def compute():
    until = time.monotonic() + 0.25
    while time.monotonic() < until:
        sum(range(20_000))  # the loop in Python


def call_c():
    started = time.monotonic()
    while time.monotonic() < started + 0.25:
        sum(range(20_000_000))  # the loop in C


def through_a_library():
    until = time.monotonic() + 0.25
    rows = [list(range(50)) for _ in range(200)]
    while time.monotonic() < until:
        json.dumps(rows, indent=1)  # the call of a library


async def handle_request():
    sleep()
