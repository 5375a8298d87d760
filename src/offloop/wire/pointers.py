"""Where objects have their bytes: addresses, by the C interface of the interpreter.

What `memmove` copies with the GIL released, and what tells whether a buffer lies in
shared memory, is an address. Python has no word for that of a read-only buffer, so the
buffer protocol is asked itself. A `str` has no buffer, but an ASCII one has its bytes
in a row: they can be read, and written while the text is new and nobody knows it.

ctypes is imported at the first need: most workers never see a large buffer. It makes a
type for each length of an array and never forgets its name, so there is one for each
class of sizes.
"""

from __future__ import annotations

from offloop.wire.space import class_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: contiguous in either order, read-only or not
_ANY_CONTIGUOUS = 0x98

#: length, and the ctypes array type of so many bytes
_types: dict[int, Any] = {}

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


def array_type(length: int) -> Any:
    """Return the ctypes type of an array of so many bytes: few different ones, please.

    Its instances take attributes, and live as long as any view on them.
    """
    kind = _types.get(length)
    if kind is None:
        import ctypes

        kind = _types[length] = ctypes.c_ubyte * length
    return kind


def copy(target: object, source: object) -> None:
    """Copy all bytes of a buffer to the beginning of another one, the GIL released."""
    import ctypes

    to, origin = Held(target), Held(source)
    try:
        if origin.size > to.size:
            raise ValueError(f"{origin.size} bytes do not fit into {to.size}")
        ctypes.memmove(to.address, origin.address, origin.size)
    finally:
        to.release()
        origin.release()


def copied(source: object, kind: type[bytes] | type[bytearray]) -> bytes | bytearray:
    """Return a copy of a buffer, made with the GIL released."""
    held = Held(source)
    size = held.size
    held.release()
    target: bytes | bytearray
    if kind is bytearray:
        target = bytearray(size)
    else:
        import ctypes

        kinds = ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t
        prototype = ctypes.PYFUNCTYPE(*kinds)
        make = prototype(("PyBytes_FromStringAndSize", ctypes.pythonapi))
        target = make(None, size)  # its bytes are whatever was there: nobody knows it
    copy(target, source)
    return target


def text_bytes(text: str) -> memoryview:
    """Return a read-only view on the characters of an ASCII text; it holds the text."""
    return _characters(text).toreadonly()


def new_ascii(length: int) -> tuple[str, memoryview]:
    """Return a text of so many characters, more than one, and a view to write them.

    They must be ASCII and be written before anything else is done with the text.
    """
    import ctypes

    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_ssize_t, ctypes.c_uint32)
    text = prototype(("PyUnicode_New", ctypes.pythonapi))(length, 127)
    return text, _characters(text)


def _characters(text: str) -> memoryview:
    import ctypes

    prototype = ctypes.PYFUNCTYPE(
        ctypes.c_void_p, ctypes.py_object, ctypes.POINTER(ctypes.c_ssize_t)
    )
    find = prototype(("PyUnicode_AsUTF8AndSize", ctypes.pythonapi))
    exporter = array_type(class_size(len(text))).from_address(find(text, None))
    exporter.keeper = text
    return memoryview(exporter).cast("B")[: len(text)]


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
