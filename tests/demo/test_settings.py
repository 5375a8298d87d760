"""The limits of a server."""

from __future__ import annotations

from offloop.demo.settings import Settings


def test_two_images_may_wait_for_each_worker():
    assert Settings(workers=3).max_pending == 9


def test_the_queue_can_be_set_and_be_nothing():
    assert Settings(workers=3, queue=0).max_pending == 3
    assert Settings(workers=3, queue=5).max_pending == 8
