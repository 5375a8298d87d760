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
        upload_timeout: seconds that an upload may take.
        max_upload_bytes: bytes of all uploads that are in memory at once, received or
            being received.
        memory_limit: bytes that a worker may hold while it makes an image; one that
            holds half of it afterwards is replaced.
        keys: secrets that requests are signed with, any of them; none: no signatures.
        allow_origin: web origin whose pages may use the server, "*" for all; None: only
            its own.
        isolation: "process": each image gets a process of its own, which ends with it;
            "sandbox": that process has no network, starts no program and signals
            nobody; "none": a worker makes one image after the other.
        codec: what decodes and encodes: "pillow"; or "vips", where it can do what is
            asked for, and Pillow elsewhere.
        controls: offer what only belongs on one's own machine: running on the event
            loop to show what happens, and killing workers.
        debug_headers: tell sizes and worker of each image in headers of the answer.
    """

    workers: int = field(default_factory=machine.default_max_workers)
    queue: int | None = None
    max_body: int = 20 * 1024**2
    max_pixels: int = 50_000_000
    timeout: float = 10.0
    upload_timeout: float = 30.0
    max_upload_bytes: int = 256 * 1024**2
    memory_limit: int = 1024**3
    keys: tuple[str, ...] = ()
    allow_origin: str | None = None
    isolation: str = "none"
    codec: str = "pillow"
    controls: bool = False
    debug_headers: bool = False

    @property
    def max_pending(self) -> int:
        """Jobs that may be waiting or running at once."""
        queue = 2 * self.workers if self.queue is None else self.queue
        return self.workers + queue
