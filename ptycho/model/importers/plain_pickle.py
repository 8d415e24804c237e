"""Pickles of strangers, read as plain data: numbers, texts, containers and numeric arrays, and nothing else.

Python's own unpickler imports and calls what a file names. This one does neither: it walks the opcodes and builds
values itself; a name in the file is only ever looked up in a short table of what may be built.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ptycho.errors import DataError

__all__ = ["Name", "read_plain_pickle"]

_DEEPEST = 50
_GROWTH = 2
_ROOM = 1 << 20
"""What calls build may take 1 MiB and twice the file: one piece of a file can be asked for again and again."""
_OPCODE_LIMIT = 300_000
"""Opcodes: an empty set is one byte in the file and 216 in memory. The weights of a network take some ten thousands."""
_BYTES_EACH: dict[type, int] = {str: 4, bytes: 1, dict: 100, set: 100}
_LONGEST_CODE = 8
_KEYS = (str, bytes, int, float, bool, type(None))  # a hash of nested tuples may take for ever
_AS_GIVEN = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"BYTEARRAY8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINSTRING", "BINSTRING"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING"}
)
_FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DAMAGED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, MemoryError)


class Name(NamedTuple):
    """Something that a pickle names, as text."""

    module: str
    attribute: str


class _Array:
    """An array under construction: numpy's pickles name it first and fill it later."""

    value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype.value, shape, "F" if fortran else "C")


class _DType:
    """A dtype of numbers under construction; what follows its code may only state a byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        if len(_of(str, code)) > _LONGEST_CODE or np.dtype(code).kind not in "biufc":
            raise ValueError(f"an array of {code[:_LONGEST_CODE]!r}")
        self.value = np.dtype(code)

    def build(self, state: Any) -> None:
        order = state[1]
        if any(part is not None for part in state[2:5]):
            raise ValueError("an array of records")
        self.value = self.value.newbyteorder(order if order in "<>" else "=")


def read_plain_pickle(
    data: bytes,
    what: str,
    also: Mapping[Name, Callable[..., Any]] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value in a pickle, of any protocol from 0 to 5; dill's pickles of plain values are read as well.

    Parameters
    ----------
    data
        The pickle.
    what
        Where it comes from, for messages.
    also
        What may be built besides numpy's arrays and numbers, TensorFlow's tensors (as arrays) and paths (as texts): by
        its name in the file a function of this library, which is called with the file's values.
    persistent
        Makes a value from a persistent id; None refuses them.

    Returns
    -------
    Built-in numbers, texts, bytes and containers, and numpy arrays.

    Raises
    ------
    DataError
        It is damaged, or asks for anything else; the message says for what.
    """
    try:
        return _finished(_Machine(what, {**_BUILT, **(also or {})}, persistent).run(data), {}, 0)
    except DataError:
        raise
    except _DAMAGED as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"{what} is damaged, or holds more than plain data ({reason}); it is not read.") from error


class _Machine:
    """The stack, the marks and the memo that opcodes work on."""

    def __init__(
        self, what: str, built: Mapping[Name, Callable[..., Any]], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.what, self.built, self.persistent = what, built, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.room = 0

    def run(self, data: bytes) -> Any:
        """The value; the opcodes are parsed by the standard library, which executes none."""
        self.room = _GROWTH * len(data) + _ROOM
        for step_number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step_number == _OPCODE_LIMIT:
                raise DataError(f"{self.what} takes more than {_OPCODE_LIMIT} steps to build, which is refused.")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _AS_GIVEN:
                self.stack.append(argument)
            elif opcode.name in _FIXED:
                self.stack.append(_FIXED[opcode.name]())
            elif opcode.name in _TUPLES:
                self.stack.append(tuple(self._take(_TUPLES[opcode.name])))
            elif opcode.name not in ("PROTO", "FRAME"):
                step = getattr(self, f"_{opcode.name.lower()}", None)
                if step is None:
                    raise DataError(f"{self.what} holds more than plain data ({opcode.name}); it is not read.")
                step(argument)
        raise ValueError("no end")

    def _take(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("a value is missing")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def _since_mark(self) -> list[Any]:
        return self._take(len(self.stack) - self.marks.pop())

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._fill(self.stack[-1], values)

    def _append(self, _: Any) -> None:
        (value,) = self._take(1)
        _of(list, self.stack[-1]).append(value)

    def _appends(self, _: Any) -> None:
        values = self._since_mark()
        _of(list, self.stack[-1]).extend(values)

    def _setitem(self, _: Any) -> None:
        values = self._take(2)
        self._fill(self.stack[-1], values)

    def _setitems(self, _: Any) -> None:
        values = self._since_mark()
        self._fill(self.stack[-1], values)

    def _fill(self, target: Any, values: list[Any]) -> None:
        keys = [_key(value) for value in values[::2]]
        _of(dict, target).update(zip(keys, values[1::2], strict=True))

    def _additems(self, _: Any) -> None:
        values = self._since_mark()
        _of(set, self.stack[-1]).update(_key(value) for value in values)

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binput(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _binget(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _put = _long_binput = _binput
    _get = _long_binget = _binget

    def _global(self, text: str) -> None:
        self.stack.append(Name(*text.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        self.stack.append(Name(*(_of(str, part) for part in self._take(2))))

    def _reduce(self, _: Any) -> None:
        name, arguments = self._take(2)
        maker = self.built.get(name) if isinstance(name, Name) else None
        if maker is None:
            asked = ".".join(name) if isinstance(name, Name) else type(name).__name__
            raise DataError(
                f"{self.what} asks to call {asked}, which can run code and is refused; only plain data are read."
            )
        self._charge(sum(len(part) for part in _of(tuple, arguments) if isinstance(part, str)))  # joined by some
        made = maker(*arguments)
        self._charge(_BYTES_EACH[type(made)] * len(made) if type(made) in _BYTES_EACH else 0)
        self.stack.append(made)

    def _charge(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise DataError(f"{self.what} builds far more than it holds, which is refused; it is damaged or a bomb.")

    def _build(self, _: Any) -> None:
        (state,) = self._take(1)
        target = self.stack[-1]
        if isinstance(target, _Array | _DType):
            target.build(state)
        elif not isinstance(target, dict):  # an ordered dictionary's attributes are left out
            raise DataError(f"{self.what} asks to change a {type(target).__name__}, which is refused; it is not read.")

    def _binpersid(self, _: Any) -> None:
        (key,) = self._take(1)
        if self.persistent is None:
            raise DataError(f"{self.what} refers to something outside itself, which is refused; it is not read.")
        self.stack.append(self.persistent(key))


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} in the place of a {kind.__name__}")
    return value


def _key(value: Any) -> Any:
    if not isinstance(value, _KEYS):
        raise TypeError(f"{type(value).__name__} as a key")
    return value


def _array(data: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """A read-only array on the bytes of the file, which have to be as many as the shape says."""
    sides = tuple(int(side) for side in shape)
    if min(sides, default=0) < 0 or not isinstance(data, bytes | bytearray):
        raise ValueError(f"an array of shape {sides} in {type(data).__name__}")
    return np.frombuffer(data, dtype).reshape(sides, order="F" if order == "F" else "C")


def _scalar(dtype: _DType, data: Any) -> Any:
    return _array(data, dtype.value, ()).item()


def _filled(maker: Any, arguments: Any, state: Any, attributes: Any = None) -> np.ndarray | None:
    """What dill writes for an array."""
    if maker not in _RECONSTRUCT or attributes:
        raise ValueError("an array by another function")
    target = _Array()
    target.build(state)
    return target.value


def _as_array(value: Any, *_: Any) -> Any:
    """What TensorFlow writes for a tensor: a conversion of an array."""
    return value.value if isinstance(value, _Array) else value


def _encode(text: Any, codec: Any) -> bytes:
    if codec not in ("latin1", "latin-1"):
        raise ValueError("text of another encoding than latin1")
    return _of(str, text).encode("latin1")


def _finished(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """The value with finished arrays; what is shared stays shared, so that a few bytes do not grow without end."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without contents")
        return value.value
    if isinstance(value, Name | _DType):
        raise ValueError(f"a {type(value).__name__} in the place of a value")
    if not isinstance(value, list | tuple | dict):
        return value
    if id(value) not in seen:
        seen[id(value)] = None  # what contains itself ends here
        seen[id(value)] = (
            {key: _finished(item, seen, depth + 1) for key, item in value.items()}
            if isinstance(value, dict)
            else type(value)(_finished(item, seen, depth + 1) for item in value)
        )
    return seen[id(value)]


_RECONSTRUCT = tuple(Name(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core"))
_BUILT: dict[Name, Callable[..., Any]] = {
    Name("numpy", "dtype"): _DType,
    Name("_codecs", "encode"): _encode,
    Name("collections", "OrderedDict"): lambda pairs=(): {_key(key): value for key, value in pairs},
    **{
        Name(module, "set"): lambda values=(): {_key(value) for value in values}
        for module in ("builtins", "__builtin__")
    },
    Name("dill._dill", "_create_array"): _filled,
    Name("tensorflow.python.framework.ops", "convert_to_tensor"): _as_array,
    Name("tensorflow.python.framework.tensor_conversion", "convert_to_tensor"): _as_array,
    **{
        Name("pathlib", kind): lambda *parts: "/".join(parts).replace("//", "/")
        for kind in ("PosixPath", "WindowsPath", "Path")
    },
    **{name: lambda *_: _Array() for name in _RECONSTRUCT},
    **{Name(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{
        Name(f"numpy.{core}.numeric", "_frombuffer"): lambda data, dtype, shape, order: _array(
            data, dtype.value, shape, order
        )
        for core in ("core", "_core")
    },
}
