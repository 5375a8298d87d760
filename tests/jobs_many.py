"""Functions that tests call with many items, in chunks or together."""

from __future__ import annotations

import signal
import threading

import jobs
from offloop import current_job


def unlucky(number):
    if number in (13, 17):
        raise ValueError(f"{number} is unlucky")
    return number


def die_at(number, fatal):
    if number == fatal:
        jobs.die_by(signal.SIGKILL)
    return number


def lock_at(number, where):
    return threading.Lock() if number == where else number


def job_of(value):
    return current_job().id


def halves(numbers):
    return [n // 2 if n % 2 == 0 else ValueError(f"{n} is odd") for n in numbers]
