"""Where objects have their bytes: addresses, by the C interface of the interpreter.

What `memmove` copies with the GIL released, and what tells whether a buffer lies in
shared memory, is an address. Python has no word for that of a read-only buffer, so the
buffer protocol is asked itself. ctypes is imported at the first need: most workers
never see a large buffer.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: contiguous in either order, read-only or not
_ANY_CONTIGUOUS = 0x98

#: `Py_buffer` and the two functions for it; None until they are first needed
_interface: tuple[Any, Any, Any] | None = None


class Held:
    """The bytes of an object, held where they are until `release`.

    Args:
        obj: anything with the buffer protocol.

    Raises:
        BufferError, ValueError: it is not contiguous; which one is up to its type.
        TypeError: it has no buffer.
    """

    __slots__ = ("_buffer", "address", "size")

    def __init__(self, obj: object) -> None:
        structure, get, _ = _interface or _find_interface()
        self._buffer = structure()
        get(obj, self._buffer, _ANY_CONTIGUOUS)
        #: of the first byte
        self.address: int = self._buffer.buf or 0
        #: bytes
        self.size: int = self._buffer.len

    def release(self) -> None:
        """Let the object go; its bytes may move from now on."""
        (_interface or _find_interface())[2](self._buffer)


def _find_interface() -> tuple[Any, Any, Any]:
    global _interface
    import ctypes

    class PyBuffer(ctypes.Structure):
        """As CPython's ``Include/pybuffer.h``, part of its stable interface."""

        _fields_ = (
            ("buf", ctypes.c_void_p),
            ("obj", ctypes.c_void_p),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("format", ctypes.c_void_p),
            ("shape", ctypes.c_void_p),
            ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p),
            ("internal", ctypes.c_void_p),
        )

    # Prototypes of our own: those of `ctypes.pythonapi` belong to everybody.
    pointer = ctypes.POINTER(PyBuffer)
    get = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, pointer, ctypes.c_int)
    release = ctypes.PYFUNCTYPE(None, pointer)
    _interface = (
        PyBuffer,
        get(("PyObject_GetBuffer", ctypes.pythonapi)),
        release(("PyBuffer_Release", ctypes.pythonapi)),
    )
    return _interface
