"""Functions, classes and errors that the tests of `wire` send, and a worker for them.

`Remote` is a worker reduced to the wire: a second process that reads calls from its
input and answers on its output. Scripts use it too, so that ``__main__`` differs.
"""

import functools
import pickle
import subprocess
import sys

from offloop.wire import codec
from offloop.wire.functions import FunctionCache, FunctionTable

LIMIT = 3


def add(a, b=0):
    return a + b


def forgetful(a):
    return a


async def wait(a):
    return a


def count(n):
    yield from range(n)


async def acount(n):
    yield n


def noisy(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return "noise", fn(*args, **kwargs)

    return wrapper


def offloaded(fn):
    """Do as `@offload` does, as far as the wire can see it."""

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        raise AssertionError("the wrapper was called instead of the function")

    wrapper.__offloop__ = True
    wrapper.submit = functools.partial(wrapper)
    return wrapper


@offloaded
def twice(a):
    return 2 * a


@offloaded
@noisy
def loud(a):
    return a


class Model:
    """A class with methods of every sort."""

    def __init__(self, factor=1):
        self.factor = factor

    def scale(self, a):
        return self.factor * a

    @classmethod
    def make(cls, factor):
        return cls(factor)

    @staticmethod
    def double(a):
        return 2 * a

    @offloaded
    def decorated(self, a):
        return self.factor + a

    def __eq__(self, other):
        return self.factor == other.factor


class Scale:
    """A callable object."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, a):
        return self.factor * a


class AsyncScale(Scale):
    """A callable object that must be awaited."""

    async def __call__(self, a):
        return self.factor * a


def make_adder(n):
    def adder(a):
        return a + n

    return adder


class Refuses:
    """Cannot be pickled, and says so in its own words."""

    def __init__(self, error=None):
        self.error = error

    def __reduce__(self):
        raise self.error or TypeError("it stays here")


class Remote:
    """A second process; `call` runs a function there."""

    def __init__(self):
        self.table = FunctionTable()
        self._known = set()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()

    def call(self, fn, *args, **kwargs):
        function, args = self.table.prepare(fn, args)
        new = function.id and function.id not in self._known
        self._known.add(function.id)
        payload, buffers = codec.encode_call(args, kwargs, function.name)
        definition = function.definition if new else None
        call = (function.id, definition, payload, list(map(bytes, buffers)))
        pickle.dump(call, self._process.stdin)
        self._process.stdin.flush()
        ok, answer = pickle.load(self._process.stdout)
        if not ok:
            raise codec.decode_error(answer)
        return codec.decode(*answer)


def _work(calls, answers):
    cache = FunctionCache()
    while True:
        try:
            id, definition, payload, buffers = pickle.load(calls)
        except EOFError:
            return
        try:
            if definition:
                cache.learn(id, definition)
            args, kwargs = codec.decode_call(payload, list(map(bytearray, buffers)))
            result, out = codec.encode_result(cache.get(id)(*args, **kwargs), "call")
            answer = True, (result, list(map(bytes, out)))
        except BaseException as error:
            answer = False, codec.encode_error(error, job_id=1, function="call")
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    _work(sys.stdin.buffer, sys.stdout.buffer)
