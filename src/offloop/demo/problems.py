"""What can be wrong with a request, as RFC 9457 "problem details".

A `Problem` is raised where the mistake is found, in the server or in a worker, and is
answered by the app. This module imports neither the web nor the image library, because
both sides need it. It also says which problem each error of the pool is.
"""

from __future__ import annotations

from math import ceil

from offloop import errors

__all__ = ["FULL", "Problem", "from_pool", "kind_of"]

# What HTTP calls each status; the longer names of the standard library are for people
# who know HTTP.
_TITLES = {
    400: "Bad request",
    401: "Not signed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "No format that the client takes",
    408: "Too slow",
    410: "Expired",
    413: "The upload is too large",
    415: "Not an image that is accepted here",
    422: "The image cannot be processed",
    429: "Too busy",
    500: "Internal error",
    502: "The worker was lost",
    503: "Not available",
    504: "Out of time",
    507: "Out of memory",
}


def kind_of(status: int) -> str:
    """Return a word for a kind of problem, such as "too-busy"; it labels figures."""
    if status == 499:
        return "client-left"
    return _TITLES.get(status, "other").lower().replace(" ", "-")


class Problem(Exception):
    """A request that cannot be answered as asked.

    Attributes:
        status: the HTTP status.
        detail: one sentence for the person who reads it.
        param: name of the parameter at fault, or None.
        headers: further headers of the answer.
        members: further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        members: dict[str, str | int] | None = None,
    ) -> None:
        # What pickle rebuilds it from.
        super().__init__(status, detail, param, headers, members)
        self.status = status
        self.detail = detail
        self.param = param
        self.headers = headers or {}
        self.members = members or {}

    @property
    def title(self) -> str:
        """The kind of problem, equal for all problems of a status."""
        return _TITLES.get(self.status, "Error")

    def as_dict(self) -> dict[str, str | int]:
        """Return the members of the JSON document."""
        members: dict[str, str | int] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.param is not None:
            members["param"] = self.param
        return members | self.members

    def __str__(self) -> str:
        return f"{self.status} {self.title}: {self.detail}"


#: what a client reads that comes when there is no room
FULL = "All workers are busy and the queue is full; try again later."

# The first line that fits counts. Texts are for the client: a path or a process number
# of the server is none of its business.
_POOL_PROBLEMS: tuple[tuple[type[errors.OffloopError], int, str], ...] = (
    (errors.PoolClosed, 503, "The server is shutting down."),
    (errors.PoolLost, 503, "The workers are gone."),
    (errors.StartError, 503, "The workers cannot start."),
    (errors.JobTimeout, 504, "The image took too long; its worker was stopped."),
    (errors.WorkerLost, 502, "The process that worked on this image died."),
    (errors.PoisonJob, 502, "This image kills every process that works on it."),
    (errors.MemoryLimitExceeded, 507, "The image takes more memory than is allowed."),
)


def from_pool(error: errors.OffloopError, retry_after: int = 1) -> Problem:
    """Return the problem that an error of the pool means to the client.

    Args:
        error: what the pool raised.
        retry_after: seconds after which another attempt makes sense.
    """
    if isinstance(error, errors.PoolFull):
        retry_after = max(retry_after, ceil(error.retry_after or 0))
    wait = {"Retry-After": str(retry_after)}
    if isinstance(error, errors.PoolFull):
        return Problem(429, FULL, headers=wait)
    for kind, status, detail in _POOL_PROBLEMS:
        if isinstance(error, kind):
            headers = {**wait, "Connection": "close"} if status == 503 else {}
            return Problem(status, detail, headers=headers, members=_members(error))
    return Problem(500, "The server made a mistake.")


def _members(error: errors.OffloopError) -> dict[str, str | int]:
    """Return what an error tells of the job and of its worker's end."""
    told = {name: getattr(error, name, None) for name in ("job_id", "reason", "signal")}
    return {name.removesuffix("_id"): value for name, value in told.items() if value}
