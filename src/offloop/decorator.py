"""`@offload`: a function that runs in a worker wherever it is awaited.

The decorated function is a real coroutine function to everybody who asks, so it works
as an endpoint, in `TaskGroup.create_task` and in `gather`. It finds the default pool of
the running loop at the call and does nothing else.

Inside a job it calls the function itself: a pool in every worker would be N times M
processes. So what a pool needs is not even imported there.
"""

from __future__ import annotations

import functools
from contextlib import aclosing, closing
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

from offloop import context
from offloop.errors import NotOffloadable

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        AsyncIterator,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
    )

    from offloop.ahead import Results
    from offloop.engines.base import Job, Stream
    from offloop.options import Batch, FunctionWords, OffloadWords
    from offloop.view import PoolView

__all__ = ["Batched", "Offloaded", "OffloadedStream", "configure", "offload"]

# Flags of the code of generator functions, plain and asynchronous.
_GENERATES = 0x20 | 0x200

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")


class Offloaded(Protocol[P, T]):
    """A function whose calls are jobs: what `offload` makes.

    It is a plain coroutine function with these attributes; as a method it is bound to
    its object like any other.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Wait for room in the default pool, run there, and return the result."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = ...) -> Offloaded[P, T]: ...
    @overload
    def __get__(
        self: Offloaded[Concatenate[S, Q], T], instance: S, owner: Any = ...
    ) -> Callable[Q, Coroutine[Any, Any, T]]: ...

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Queue a call at once; raises `PoolFull` where a call would wait."""
        ...

    def local(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, here and now."""
        ...

    def map(
        self,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        chunksize: int | Literal["auto"] = ...,
        buffersize: int | None = ...,
        ordered: bool = ...,
        return_exceptions: bool = ...,
    ) -> Results[T]:
        """Call it with each item and give the results; see `Pool.map`."""
        ...

    def options(self, **changes: Unpack[OffloadWords]) -> Offloaded[P, T]:
        """Return the same function with other job options; see `PoolView.options`."""
        ...


class OffloadedStream(Protocol[P, T]):
    """A generator function whose calls are streams: what `offload` makes of one.

    It is an asynchronous generator function with these attributes; as a method it is
    bound to its object like any other.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
        """Run it in the default pool, and yield its parts as they come."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = ...) -> OffloadedStream[P, T]: ...
    @overload
    def __get__(
        self: OffloadedStream[Concatenate[S, Q], T], instance: S, owner: Any = ...
    ) -> Callable[Q, AsyncGenerator[T]]: ...

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        """Do the same, with the job of the stream at hand; see `Pool.stream`."""
        ...

    def local(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, here and now."""
        ...

    def options(self, **changes: Unpack[OffloadWords]) -> OffloadedStream[P, T]:
        """Return the same function with other job options; see `PoolView.options`."""
        ...


class Batched(Protocol[S_contra, T]):
    """A function of lists whose calls are gathered: what `offload(batch=...)` makes.

    It is called with one item and gives one result.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    async def __call__(self, item: S_contra, /) -> T:
        """Wait for company and for room, run together, and return the item's result."""
        ...

    def local(self, items: Any, /) -> Any:
        """Call the function itself, here and now, with a list."""
        ...

    @overload
    def options(
        self, *, batch: None, **changes: Unpack[FunctionWords]
    ) -> Offloaded[[Any], list[T]]: ...
    @overload
    def options(
        self, *, batch: Batch = ..., **changes: Unpack[FunctionWords]
    ) -> Batched[S_contra, T]: ...
    def options(self, **changes: Any) -> Any:
        """Return the same function with other job options; see `PoolView.options`."""
        ...


@overload
def offload(  # type: ignore[overload-overlap]  # the first that fits is meant
    fn: Callable[P, AsyncIterator[T] | Iterator[T]], /
) -> OffloadedStream[P, T]: ...
@overload
def offload(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Offloaded[P, T]: ...
@overload
def offload(fn: Callable[P, T], /) -> Offloaded[P, T]: ...
@overload
def offload(*, batch: Batch, **options: Unpack[FunctionWords]) -> _OffloadBatched: ...
@overload
def offload(*, batch: None = ..., **options: Unpack[FunctionWords]) -> _Offload: ...
def offload(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function run in a worker process wherever it is awaited.

    Args:
        fn: the function; `async def` functions are run in the worker by `asyncio.run`.
        **options: job options, as for `Pool.options`, and `engine`: where the function
            runs, whatever the default pool has; "thread" for what lets go of the
            interpreter's lock, with arguments that are not copied.

    Returns:
        The function as a coroutine function (see `Offloaded`), or, for a generator
        function, as an asynchronous generator function (see `OffloadedStream`); with
        options only, a decorator that makes it.

    Raises:
        NotOffloadable: for what is not callable.
        TypeError, ValueError: for a wrong option.

    Example:
        @offload(timeout=5)
        def thumbnail(data: bytes, width: int) -> bytes: ...

        webp = await thumbnail(data, 400)
    """
    _check(options)  # a mistake is an error at the decorator's line
    if fn is None:
        return functools.partial(_offloaded, options=options)
    return _offloaded(fn, options)


class _Offload(Protocol):
    """The decorator that `offload` with options makes."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, AsyncIterator[T] | Iterator[T]], /
    ) -> OffloadedStream[P, T]: ...
    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Offloaded[P, T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> Offloaded[P, T]: ...


class _OffloadBatched(Protocol):
    """The decorator that `offload` with `batch` makes."""

    @overload
    def __call__(
        self,
        fn: Callable[[list[S]], Coroutine[Any, Any, list[T | Exception]]],
        /,
    ) -> Batched[S, T]: ...
    @overload
    def __call__(
        self, fn: Callable[[list[S]], Coroutine[Any, Any, list[T]]], /
    ) -> Batched[S, T]: ...
    @overload
    def __call__(
        self, fn: Callable[[list[S]], list[T | Exception]], /
    ) -> Batched[S, T]: ...
    @overload
    def __call__(self, fn: Callable[[list[S]], list[T]], /) -> Batched[S, T]: ...


def configure(**pool_options: Any) -> None:
    """Set the options of the default pool that `@offload` uses.

    Call it before the first offloaded call of the program; a pool that runs already
    keeps its options.

    Args:
        **pool_options: as for `Pool`.

    Raises:
        TypeError, ValueError: for a wrong option.
    """
    from offloop import default_pools

    default_pools.configure(pool_options)


def _check(options: Mapping[str, Any]) -> None:
    """Raise for wrong options; the worker's parent has done so already."""
    if not context.in_worker():
        from offloop.options import JobOptions

        words = {word: value for word, value in options.items() if word != "engine"}
        JobOptions().changed(words)


def _offloaded(fn: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    if isinstance(fn, staticmethod | classmethod) or not callable(fn):
        raise NotOffloadable(
            f"@offload takes a function, not {fn!r}; its place is below @staticmethod "
            "or @classmethod"
        )
    if not context.in_worker():
        from offloop.default_pools import load_chosen_engine

        load_chosen_engine(options.get("engine"))
    face: Any = _streaming(fn, options) if _generates(fn) else _awaited(fn, options)
    face.__offloop__ = True  # tells a worker to take the function behind it
    face.local = fn
    face.stream = functools.partial(_stream, fn, options)
    face.submit = functools.partial(_submit, fn, options)
    face.map = functools.partial(_map, fn, options)
    face.options = functools.partial(_with_options, fn, options)
    return face


def _awaited(fn: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    @functools.wraps(fn)
    async def offloaded(*args: Any, **kwargs: Any) -> Any:
        return await _run(fn, options, args, kwargs)

    return offloaded


def _generates(fn: Callable[..., Any]) -> bool:
    """Tell whether a function is a generator function, of either kind.

    As `inspect` does, which takes ten milliseconds to import.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    return bool(getattr(code, "co_flags", 0) & _GENERATES)


def _streaming(fn: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    @functools.wraps(fn)
    async def offloaded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        parts: AsyncGenerator[Any]
        if context.in_job():
            parts = _here(fn(*args, **kwargs))
        else:
            parts = aiter(_default_view(options).stream(fn, *args, **kwargs))
        async with aclosing(parts):
            async for part in parts:
                yield part

    return offloaded


async def _here(made: Any) -> AsyncGenerator[Any]:
    """Iterate any generator asynchronously, where it is."""
    if hasattr(made, "__anext__"):
        async with aclosing(made):
            async for part in made:
                yield part
        return
    with closing(made):
        for part in made:
            yield part


def _stream(
    fn: Callable[..., Any], options: Mapping[str, Any], /, *args: Any, **kwargs: Any
) -> Stream[Any]:
    if _is_method(fn):
        _check_object(fn, "stream", args, kwargs)
    return _default_view(options).stream(fn, *args, **kwargs)


async def _run(
    fn: Callable[..., Any],
    options: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if context.in_job():
        return await _run_here(fn, options, args, kwargs)
    return await _default_view(options).run(fn, *args, **kwargs)


async def _run_here(
    fn: Callable[..., Any],
    options: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call a function in the job that awaits it."""
    from asyncio import iscoroutine

    batched = options.get("batch") is not None
    value = fn(list(args), **kwargs) if batched else fn(*args, **kwargs)
    if iscoroutine(value):
        value = await value
    if not batched:
        return value
    from offloop.gathering import alone

    return alone(value)


def _submit(
    fn: Callable[..., Any], options: Mapping[str, Any], /, *args: Any, **kwargs: Any
) -> Job[Any]:
    if _is_method(fn):
        _check_object(fn, "submit", args, kwargs)
    return _default_view(options).submit(fn, *args, **kwargs)


def _map(
    fn: Callable[..., Any],
    options: Mapping[str, Any],
    /,
    *iterables: Iterable[Any] | AsyncIterable[Any],
    **how: Any,
) -> Results[Any]:
    return _default_view(options).map(fn, *iterables, **how)


def _is_method(fn: Callable[..., Any]) -> bool:
    """Tell whether a function was defined in the body of a class."""
    scope = getattr(fn, "__qualname__", "").rpartition(".")[0]
    return bool(scope) and not scope.endswith("<locals>")


def _check_object(
    fn: Callable[..., Any], face: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise if a method lacks its object: ``obj.method.submit`` does not have it.

    Python binds the function to its object, and not the function's attributes.
    """
    import inspect

    try:
        inspect.signature(fn).bind(*args, **kwargs)
    except TypeError as error:
        name = fn.__qualname__
        raise TypeError(
            f"{name}.{face}: {error}. If it is the object that is missing, give it as "
            f"the first argument: {name}.{face}(obj, ...)"
        ) from None


def _with_options(
    fn: Callable[..., Any], options: Mapping[str, Any], /, **changes: Any
) -> Any:
    changed = {**options, **changes}
    _check(changed)
    return _offloaded(fn, changed)


def _default_view(options: Mapping[str, Any]) -> PoolView:
    # Not before: a worker imports this module for the functions that it runs, and a
    # pool with all that belongs to it would take longer than most of them.
    from offloop.default_pools import default_view

    return default_view(options)
