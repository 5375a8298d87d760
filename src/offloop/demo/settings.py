"""What the demo server allows: one value for each option of ``offloop demo``."""

from __future__ import annotations

from dataclasses import dataclass, field

from offloop import machine

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The limits of one server.

    Attributes:
        workers: processes that decode and encode.
        queue: images that may wait beyond those being worked on; None: two for each
            worker. One more is refused with 429.
        max_body: bytes of an upload.
        max_pixels: pixels of an image, summed over its frames, and of a result.
        timeout: seconds from the end of the upload to the result.
    """

    workers: int = field(default_factory=machine.default_max_workers)
    queue: int | None = None
    max_body: int = 20 * 1024**2
    max_pixels: int = 50_000_000
    timeout: float = 10.0

    @property
    def max_pending(self) -> int:
        """Jobs that may be waiting or running at once."""
        queue = 2 * self.workers if self.queue is None else self.queue
        return self.workers + queue
