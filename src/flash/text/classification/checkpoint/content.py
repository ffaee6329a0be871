"""Serialise a checkpoint's content as one JSON text and named tensors. Imports torch only if it contains a tensor.

Containers, strings, numbers and None become JSON. Other values become a dict with one key that begins with `$`:

    {"$tensor": name}       a tensor; the same name in several places is the same tensor (tied weights)
    {"$json": name}         a long text, or a long list of plain values: its JSON as a uint8 tensor
    {"$bytes": name}        bytes as a uint8 tensor
    {"$tuple": [...]}       a tuple
    {"$items": [[k, v]]}    a dict with keys that are not strings, or that begin with `$`
    {"$float": "nan"}       a number that is not finite
    {"$characters": [...]}  a text with lone surrogates, by code points

Keys are sorted, so that the same content always gives the same bytes.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flash.core.errors import CheckpointError, FlashError

MOST_NESTED = 100  # maximum nesting depth of containers
MOST_INTEGER_BITS = 2000  # Python refuses JSON numbers of more than 4,300 digits
LONG_TEXT, LONG_LIST = 1_000, 10_000
"""Strings and lists that are longer are stored as tensors, so that the JSON stays small."""
STORED_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "C64": "complex64"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
"""Supported tensor types: their names in safetensors and in torch."""
RESERVED = "__metadata__"


class DamagedError(FlashError):
    """The content was not written by `flatten`; the message says what is wrong."""


def flatten(content: Any, where: str = "checkpoint") -> tuple[str, dict[str, Any]]:
    """Serialise content to JSON and its tensors by name; tensors are not copied.

    Args:
        content: dicts, lists and tuples of strings, bytes, numbers, None and dense torch tensors.
        where: name of the content in messages.

    Raises:
        CheckpointError: the content contains something else; the message names where.
    """
    writer = _Writer()
    plain = writer.plain(content, where, "", 0)
    return as_json(plain), writer.tensors


def as_json(plain: Any) -> str:
    """Return canonical JSON: ASCII, sorted keys, no spaces."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse(text: str | bytes) -> Any:
    """Parse a JSON text.

    Raises:
        DamagedError: the text is not JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DamagedError("its description cannot be read") from error


def unflatten(plain: Any, tensor: Callable[[str], Any], data: Callable[[str], bytes]) -> Any:
    """Restore the content from parsed JSON.

    Args:
        plain: result of `parse`.
        tensor: returns the tensor with a name.
        data: returns the bytes of the uint8 tensor with a name.

    Raises:
        DamagedError: the JSON was not written by `flatten`, or a tensor is missing.
    """
    try:
        return _Reader(tensor, data).value(plain)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError("its values cannot be put together") from error


class _Writer:
    """Converts content to JSON values, and collects its tensors."""

    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}
        self._known: dict[Any, str] = {}

    def plain(self, value: Any, where: str, name: str, depth: int) -> Any:
        """Return the JSON value of `value`; `name` is the prefix of its tensors' names."""
        kind = type(value)
        if value is None or kind is bool or (kind is int and value.bit_length() <= MOST_INTEGER_BITS):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind is str:
            return self._text(value, name)
        if kind is bytes:
            return {"$bytes": self._keep(np.frombuffer(value, np.uint8), name)}
        if depth < MOST_NESTED and kind in (dict, OrderedDict):
            return self._mapping(value, where, name, depth)
        if depth < MOST_NESTED and kind in (list, tuple):
            return self._sequence(value, where, name, depth)
        if _is_kept_tensor(value):
            return {"$tensor": self._tensor(value.detach().resolve_conj().resolve_neg(), name)}
        raise _unkeepable(where, value)

    def _text(self, value: str, name: str) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"$characters": [ord(letter) for letter in value]}
        return value if len(value) <= LONG_TEXT else self._long(value, name)

    def _long(self, value: Any, name: str) -> Any:
        return {
            "$json": self._keep(np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), np.uint8), name)
        }

    def _mapping(self, value: Mapping[Any, Any], where: str, name: str, depth: int) -> Any:
        items = [
            (
                self._key(key, where, depth),
                self.plain(item, f"{where}[{key!r}]", _joined(name, key), depth + 1),
            )
            for key, item in value.items()
        ]
        if all(type(key) is str and key[:1] != "$" for key, _ in items):
            return dict(items)
        return {"$items": [list(item) for item in items]}

    def _key(self, key: Any, where: str, depth: int) -> Any:
        parts = key if type(key) is tuple else (key,)
        if not all(part is None or type(part) in (bool, int, float, str) for part in parts):
            raise _unkeepable(f"the key {key!r} of {where}", key)
        return self.plain(key, f"the key {key!r} of {where}", "keys", depth + 1)

    def _sequence(self, value: "list[Any] | tuple[Any, ...]", where: str, name: str, depth: int) -> Any:
        if len(value) > LONG_LIST and type(value) is list and all(map(_is_simple, value)):
            return self._long(value, name)
        found = [
            self.plain(item, f"{where}[{index}]", _joined(name, index), depth + 1)
            for index, item in enumerate(value)
        ]
        return found if type(value) is list else {"$tuple": found}

    def _tensor(self, tensor: Any, name: str) -> str:
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if not tensor.numel():
            return self._keep(tensor, name)
        if place not in self._known:
            self._known[place] = self._keep(tensor, name)
        return self._known[place]

    def _keep(self, tensor: Any, name: str) -> str:
        name = name.encode("utf-8", "backslashreplace").decode()
        while name in self.tensors or name in ("", RESERVED):
            name += "_"
        self.tensors[name] = tensor
        return name


class _Reader:
    """Converts JSON values back to content."""

    def __init__(self, tensor: Callable[[str], Any], data: Callable[[str], bytes]) -> None:
        self._tags: dict[str, Callable[[Any], Any]] = {
            "$tensor": tensor,
            "$json": lambda name: parse(data(name)),
            "$bytes": data,
            "$tuple": lambda items: tuple(map(self.value, items)),
            "$items": lambda items: {self.value(key): self.value(item) for key, item in items},
            "$float": float,
            "$characters": lambda codes: "".join(map(chr, codes)),
        }

    def value(self, plain: Any) -> Any:
        if type(plain) is list:
            return [self.value(item) for item in plain]
        if type(plain) is not dict:
            return plain
        for tag, inner in plain.items():
            if tag[:1] == "$":
                return self._tags[tag](inner)
        return {key: self.value(item) for key, item in plain.items()}


def _joined(name: str, key: Any) -> str:
    """Return the name of the item under `key`; names of weights have no prefix."""
    return f"{name}/{key}" if name and name != "state_dict" else str(key)


def _is_simple(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is str:
        return value.isascii() or value.isprintable()
    return value is None or type(value) is bool or (type(value) is int and abs(value) < 2**63)


def _is_kept_tensor(value: Any) -> bool:
    """Whether this is a dense tensor of a supported type."""
    if not hasattr(value, "untyped_storage"):
        return False
    import torch

    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type != "meta"
        and not value.is_quantized
        and str(value.dtype).removeprefix("torch.") in STORED_DTYPES.values()
    )


def _unkeepable(where: str, value: Any) -> CheckpointError:
    kind = type(value)
    if kind is int:
        what = f"an integer of {value.bit_length():,} bits,"
    elif kind in (dict, OrderedDict, list, tuple):
        what = f"a {kind.__name__} inside more than {MOST_NESTED} others,"
    else:
        layout, dtype = getattr(value, "layout", None), getattr(value, "dtype", None)
        of_tensor = f" of layout {layout} and type {dtype}" if layout else ""
        what = f"a {kind.__module__}.{kind.__qualname__}{of_tensor},"
    return CheckpointError(
        f"{where[:300]}, {what} cannot be kept in a checkpoint, which holds only tensors and plain values; "
        "keep its name or its numbers instead"
    )
