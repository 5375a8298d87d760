"""Our errors under the names that `concurrent.futures` gives them.

An executor raises the errors of offloop; those for which the standard library has a
name have it too, so that code which was written for it goes on working. Nothing here
runs a job or knows an executor.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from pickle import PicklingError
from typing import Any

from offloop.errors import (
    ControlFlowError,
    NotOffloadable,
    RemoteTraceback,
    ResultNotEncodable,
    StartError,
    WorkerLost,
)


class ExecutorWorkerLost(WorkerLost, BrokenProcessPool):
    """`WorkerLost` as an executor raises it: a `BrokenExecutor` to those who know it.

    Only the job that ran is hit; the executor is not broken and goes on.
    """


class ExecutorStartError(StartError, BrokenProcessPool):
    """`StartError` as an executor raises it: this executor is broken."""


class ExecutorNotOffloadable(NotOffloadable, PicklingError):
    """`NotOffloadable` as an executor raises it: a `PicklingError` to those who ask."""


class ExecutorResultNotEncodable(ResultNotEncodable, PicklingError):
    """`ResultNotEncodable` as an executor raises it: a `PicklingError` likewise."""


#: how errors of ours look to those who know `concurrent.futures`
_FACES: dict[type[BaseException], type[Exception]] = {
    WorkerLost: ExecutorWorkerLost,
    StartError: ExecutorStartError,
    NotOffloadable: ExecutorNotOffloadable,
    ResultNotEncodable: ExecutorResultNotEncodable,
}


def as_standard(error: BaseException) -> BaseException:
    """Return the error as users of `concurrent.futures` know it.

    Always a new object for those of ours: one that is shared between futures would
    collect the tracebacks of all who raise it.
    """
    if isinstance(error, ControlFlowError) and error.__cause__ is not None:
        return error.__cause__
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        shown: Any = f'\n"""\n{cause.text}"""'  # what it takes, whatever its stub says
        # Around a __setattr__ of its class, which may refuse (a frozen dataclass).
        BaseException.__setattr__(error, "__cause__", _RemoteTraceback(shown))
    face = _FACES.get(type(error))
    return error if face is None else with_face(error, face)


def with_face(error: BaseException, cls: type[Exception]) -> Exception:
    face = cls(str(error))
    face.__dict__.update(error.__dict__)
    face.__cause__ = error.__cause__
    return face
