"""The pickle of a torch file as plain values and read-only NumPy arrays, without torch and without running code.

This is no `pickle.Unpickler`, which trusts its input, but a machine of its own that knows only the instructions that
`torch.save` writes for tensors and plain values. A name in the pickle is never looked up; the few that may be
called are names of functions here. Imports nothing of the project but its errors and `torch_file`.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from flash.core.errors import FlashError
from flash.text.classification.torch_file import TorchFile

_PROTOCOL = 2
_DTYPES = {
    "torch BoolStorage": np.bool_,
    "torch ByteStorage": np.uint8,
    "torch CharStorage": np.int8,
    "torch DoubleStorage": np.float64,
    "torch FloatStorage": np.float32,
    "torch HalfStorage": np.float16,
    "torch IntStorage": np.int32,
    "torch LongStorage": np.int64,
    "torch ShortStorage": np.int16,
}
_MOST_DIMENSIONS = 32  # of NumPy 1; torch's tensors have at most 64
_MOST_CELLS = 2**48  # of the other dimensions of an empty array, which NumPy multiplies


class HoldsCodeError(FlashError):
    """A pickle that asks for more than tensors and plain values; the message names it."""


class DamagedError(FlashError):
    """A pickle that no `torch.save` wrote; the message says what is wrong."""


class ForeignTensor(NamedTuple):
    """A tensor of a type that NumPy lacks, such as bfloat16; its numbers are not read."""

    dtype: str
    shape: tuple[int, ...]


class _Name(NamedTuple):
    """What a pickle calls something of a library: `module name`."""

    text: str


class _Storage(NamedTuple):
    """The bytes of one or more tensors: their type's name, and how many numbers of it they are said to be."""

    kind: str
    size: int
    memory: memoryview


def unpickled(parts: TorchFile) -> Any:
    """What was saved: plain values, and tensors as read-only arrays that show the mapped file.

    An OrderedDict becomes a dict; the same list or dict may stand in several places.

    Raises:
        HoldsCodeError: an object of any other kind would have to be made.
        DamagedError: the pickle, or a tensor, is not as `torch.save` writes it.
    """
    machine = _Machine(parts.tensors)
    try:
        for opcode, argument, _ in pickletools.genops(parts.pickled):
            if opcode.name not in _STEPS:
                raise HoldsCodeError(f"it uses the pickle instruction {opcode.name}")
            _STEPS[opcode.name](machine, argument)
        (value,) = machine.stack
    except FlashError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError("its values cannot be put together") from error
    _refuse_names(value)
    return value


def is_plain_key(key: Any) -> bool:
    """Whether `key` may be a dictionary's key in a checkpoint: text, a number, None, or a tuple of these."""
    parts = key if type(key) is tuple else (key,)
    return all(part is None or type(part) in (bool, int, float, str) for part in parts)


class _Machine:
    """The state while a pickle is read: values, where the last groups of them begin, and the numbered ones."""

    def __init__(self, tensors: Mapping[str, memoryview]) -> None:
        self.tensors = tensors
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop_group(self) -> list[Any]:
        """The values since the last mark."""
        start = self.marks.pop()
        if start > len(self.stack):
            raise DamagedError("its values are grouped wrongly")
        group, self.stack[start:] = self.stack[start:], []
        return group

    def pop_last(self, count: int) -> list[Any]:
        """The last `count` values."""
        if count > len(self.stack):
            raise DamagedError("its values are grouped wrongly")
        group, self.stack[-count:] = self.stack[-count:], []
        return group

    def top(self, kind: type) -> Any:
        """The last value, which stays; it has to be a list or a dict."""
        if type(self.stack[-1]) is not kind:
            raise DamagedError("its values are put together wrongly")
        return self.stack[-1]

    def add_items(self, group: list[Any]) -> None:
        """Values, to the end of the list before them."""
        self.top(list).extend(group)

    def set_items(self, group: list[Any]) -> None:
        """Keys and values in turn, into the dict before them."""
        target = self.top(dict)
        keys, values = group[::2], group[1::2]
        if not all(map(is_plain_key, keys)):
            raise DamagedError("a dictionary has a key that is neither text nor a number")
        target.update(zip(keys, values, strict=True))

    def protocol(self, number: int) -> None:
        """The version of the pickle format."""
        if number != _PROTOCOL:
            raise HoldsCodeError(f"it uses version {number} of the pickle format")

    def build(self) -> None:
        """Attributes of an OrderedDict, torch's `_metadata`, which are of no use here."""
        self.pop_last(1)
        if type(self.stack[-1]) is _Name:
            raise HoldsCodeError(f"it sets attributes of {_shown(self.stack[-1])}")
        self.top(dict)

    def reduce(self) -> None:
        """Call a name."""
        name, arguments = self.pop_last(2)
        if type(name) is not _Name or name.text not in _CALLED:
            raise HoldsCodeError(_asked(name))
        self.stack.append(_CALLED[name.text](*arguments))

    def store(self) -> None:
        """The storage of a tensor, by what identifies it."""
        (identity,) = self.pop_last(1)
        tag, kind, key, _, size = identity
        if (tag, type(kind), type(key), type(size)) != ("storage", _Name, str, int) or size < 0:
            raise DamagedError("a tensor's storage is described wrongly")
        if key not in self.tensors:
            raise DamagedError(f"the numbers of tensor {key[:20]!r} are missing")
        self.stack.append(_Storage(kind.text, size, self.tensors[key]))


def _push(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.pop_last(count)))


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _remember(machine: _Machine, number: int) -> None:
    machine.memo[number] = machine.stack[-1]


def _recall(machine: _Machine, number: int) -> None:
    machine.stack.append(machine.memo[number])


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.protocol,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "NONE": _push(None),
    "NEWTRUE": _push(True),
    "NEWFALSE": _push(False),
    "BININT": _push_argument,
    "BININT1": _push_argument,
    "BININT2": _push_argument,
    "LONG1": _push_argument,
    "BINFLOAT": _push_argument,
    "BINUNICODE": _push_argument,
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_TUPLE": _push(()),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_group())),
    "APPEND": lambda machine, _: machine.add_items(machine.pop_last(1)),
    "APPENDS": lambda machine, _: machine.add_items(machine.pop_group()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_group()),
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "GLOBAL": lambda machine, text: machine.stack.append(_Name(text)),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.store(),
}


def _asked(name: Any) -> str:
    return f"it asks for {_shown(name)}" if type(name) is _Name else "it calls a value"


def _shown(name: _Name) -> str:
    return repr(name.text.replace(" ", ".")[:100])


def _refuse_names(value: Any) -> None:
    """Names and bare storages are no values. Each container is gone through once, however often it is used."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) in (_Name, _Storage):
            raise HoldsCodeError(_asked(value) if type(value) is _Name else "it holds a bare storage")
        if type(value) in (list, tuple, dict) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if type(value) is dict else value)


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *_: Any
) -> "np.ndarray | ForeignTensor":
    """The array that torch's tensor of this storage, offset, shape and stride (in elements) shows."""
    if (
        type(storage) is not _Storage
        or type(shape) is not tuple
        or type(stride) is not tuple
        or len(shape) != len(stride)
        or not all(type(number) is int and 0 <= number < 2**63 for number in (offset, *shape, *stride))
    ):
        raise DamagedError("a tensor's shape is described wrongly")
    if storage.kind not in _DTYPES or len(shape) > _MOST_DIMENSIONS:
        return ForeignTensor(storage.kind.replace(" ", "."), shape)
    dtype = np.dtype(_DTYPES[storage.kind])
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    cells = math.prod(shape)
    if storage.size * dtype.itemsize > len(storage.memory):
        raise DamagedError("the numbers of a tensor are cut short")
    if cells == 0 and math.prod(size for size in shape if size) <= _MOST_CELLS:
        return np.empty(shape, dtype)
    if last >= storage.size or not 0 < cells <= storage.size:
        raise DamagedError("a tensor reaches beyond its storage")
    numbers = np.frombuffer(storage.memory, dtype, storage.size)
    # The stride of a dimension of size 1 is never used, and may be any number.
    strides = tuple(
        step * dtype.itemsize if size > 1 else 0 for size, step in zip(shape, stride, strict=True)
    )
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, strides, writeable=False)


def _rebuild_other_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any, *_: Any
) -> ForeignTensor:
    """A tensor of a type that torch has no storage class for."""
    tensor = _rebuild_tensor(storage, offset, shape, stride)
    if type(dtype) is not _Name or not isinstance(tensor, ForeignTensor):
        raise DamagedError("a tensor's type is described wrongly")
    return ForeignTensor(dtype.text.replace(" ", "."), tensor.shape)


def _rebuild_parameter(tensor: Any, _gradient: Any, _hooks: Any) -> Any:
    return tensor


_CALLED: Mapping[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v3": _rebuild_other_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "collections OrderedDict": lambda: {},  # its items follow
}
