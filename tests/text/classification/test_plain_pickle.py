"""Pickles that no torch wrote: none runs code, reads other memory, takes much of it, or raises a bare error."""

import pickle
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.text.classification.plain_pickle import (
    DamagedError,
    ForeignTensor,
    HoldsCodeError,
    is_plain_key,
    unpickled,
)
from flash.text.classification.torch_file import TorchFile

NUMBERS = np.arange(6, dtype=np.float32)
BIG = np.array([2**60 + 1], np.int64)


class Global:
    """`module.name`."""

    def __init__(self, name: str) -> None:
        self.name = name


class Call:
    """What a pickle calls: a global, and its arguments."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.callee, self.arguments = Global(name), arguments


class Stored:
    """A persistent id."""

    def __init__(self, *identity: Any) -> None:
        self.identity = identity


def dump(value: Any) -> bytes:
    """The opcodes of a value, without the pickle's head and tail."""
    if isinstance(value, Global):
        module, _, name = value.name.rpartition(".")
        return f"c{module}\n{name}\n".encode()
    if isinstance(value, Call):
        return dump(value.callee) + dump(value.arguments) + b"R"
    if isinstance(value, Stored):
        return dump(value.identity) + b"Q"
    if type(value) is tuple:
        return b"(" + b"".join(map(dump, value)) + b"t"
    if type(value) is list:
        return b"](" + b"".join(map(dump, value)) + b"e"
    if type(value) is dict:
        return b"}(" + b"".join(dump(key) + dump(item) for key, item in value.items()) + b"u"
    return pickle.dumps(value, protocol=2)[2:-1]


def read(value: Any) -> Any:
    opcodes = value if isinstance(value, bytes) else dump(value)
    tensors = {"0": memoryview(NUMBERS.tobytes()), "1": memoryview(BIG.tobytes()), "2": memoryview(b"")}
    return unpickled(TorchFile(b"\x80\x02" + opcodes + b".", tensors))


def storage(kind: str = "torch.FloatStorage", key: Any = "0", size: Any = 6, tag: Any = "storage") -> Stored:
    return Stored(tag, Global(kind), key, "cpu", size)


def tensor(offset: Any = 0, shape: Any = (6,), stride: Any = (1,), stored: Any = None) -> Call:
    return Call(
        "torch._utils._rebuild_tensor_v2",
        stored or storage(),
        offset,
        shape,
        stride,
        False,
        Call("collections.OrderedDict"),
    )


def test_tensors_as_torch_describes_them() -> None:
    np.testing.assert_array_equal(read(tensor()), NUMBERS)
    np.testing.assert_array_equal(read(tensor(1, (2, 2), (1, 3))), NUMBERS[1:].reshape(-1)[[[0, 3], [1, 4]]])
    np.testing.assert_array_equal(read(tensor(5, (), ())), NUMBERS[5])
    np.testing.assert_array_equal(read(tensor(0, (1, 2), (2**62, 1))), NUMBERS[None, :2])
    assert read(tensor(0, (0, 4), (4, 1), storage(key="2", size=0))).shape == (0, 4)
    assert read(Call("torch._utils._rebuild_parameter", tensor(), True, None)).shape == (6,)
    assert read(tensor(stored=storage("torch.BFloat16Storage"))) == ForeignTensor(
        "torch.BFloat16Storage", (6,)
    )


INT64 = tensor(0, (), (), storage("torch.LongStorage", "1", 1))
DAMAGED = {
    "an array as shape": (tensor(0, (INT64,), (1,)), "shape is described wrongly"),
    "an array as stride": (tensor(0, (6,), (INT64,)), "shape is described wrongly"),
    "an array as offset": (tensor(INT64), "shape is described wrongly"),
    "a bool as offset": (tensor(True), "shape is described wrongly"),
    "a float as shape": (tensor(0, (6.0,)), "shape is described wrongly"),
    "a list as shape": (tensor(0, [6]), "shape is described wrongly"),
    "a negative shape": (tensor(0, (-1,)), "shape is described wrongly"),
    "a negative stride": (tensor(5, (6,), (-1,)), "shape is described wrongly"),
    "a negative offset": (tensor(-1), "shape is described wrongly"),
    "a shape of 2**63": (tensor(0, (2**63,)), "shape is described wrongly"),
    "more sizes than strides": (tensor(0, (2, 3), (1,)), "shape is described wrongly"),
    "no storage": (tensor(stored=5), "shape is described wrongly"),
    "an array as storage": (tensor(stored=tensor()), "shape is described wrongly"),
    "beyond": (tensor(1), "reaches beyond its storage"),
    "far beyond": (tensor(0, (2, 2), (2**62, 1)), "reaches beyond its storage"),
    "one number many times": (tensor(0, (2**40,), (0,)), "reaches beyond its storage"),
    "an impossible empty shape": (tensor(0, (2**62, 2**62, 0), (1, 1, 1)), "reaches beyond its storage"),
    "larger than its bytes": (tensor(stored=storage(size=7)), "cut short"),
    "an unknown key": (tensor(stored=storage(key="9")), "the numbers of tensor '9' are missing"),
    "a number as key": (tensor(stored=storage(key=0)), "storage is described wrongly"),
    "a bool as size": (tensor(stored=storage(size=True)), "storage is described wrongly"),
    "a negative size": (tensor(stored=storage(size=-1)), "storage is described wrongly"),
    "another tag": (tensor(stored=storage(tag="module")), "storage is described wrongly"),
    "text as type": (tensor(stored=Stored("storage", "O", "0", "cpu", 2)), "storage is described wrongly"),
    "a short identity": (tensor(stored=Stored("storage")), "cannot be put together"),
    "too few arguments": (Call("torch._utils._rebuild_tensor_v2"), "cannot be put together"),
    "another type's builder": (
        Call(
            "torch._utils._rebuild_tensor_v3", storage(), 0, (6,), (1,), False, None, Global("torch.uint16")
        ),
        "type is described wrongly",
    ),
    "a list as key": (b"}]K\x01s", "cannot be put together|neither text nor a number"),
    "an array as key": ({tensor(): 1}, "neither text nor a number"),
    "a key of keys": ({(("a",),): 1}, "neither text nor a number"),
    "items of a tuple": (b")(K\x01e", "put together wrongly"),
    "attributes of a list": (b"]}b", "put together wrongly"),
    "attributes of an array": (dump(tensor()) + dump((1, (6,))) + b"b", "put together wrongly"),
    "a key without a value": (b"}(K\x01u", "cannot be put together"),
    "nothing": (b"", "cannot be put together"),
    "two values": (b"NN", "cannot be put together"),
    "no mark": (b"Nt", "cannot be put together"),
    "too few for a tuple": (b"N\x87", "grouped wrongly"),
    "a mark above the stack": (b"N(\x850t"[:3] + b"t", "cannot be put together|grouped wrongly"),
    "an unknown number": (b"h\x05", "cannot be put together"),
    "text that breaks off": (b"X\xff\xff\xff\x7fabc", "cannot be put together"),
}


@pytest.mark.parametrize(("value", "words"), DAMAGED.values(), ids=DAMAGED)
def test_damaged(value: Any, words: str) -> None:
    with pytest.raises(DamagedError, match=words):
        read(value)


REBUILD = Global("torch._utils._rebuild_tensor_v2")
CODE = {
    "a function": (Call("os.system", "true"), "asks for 'os.system'"),
    "a builtin": (Call("__builtin__.getattr", 1, "real"), "asks for '__builtin__.getattr'"),
    "another function of torch": (Call("torch.load", "x"), "asks for 'torch.load'"),
    "a name": ([Global("os.system")], "asks for 'os.system'"),
    "a name in a dict": ({"a": (REBUILD,)}, "asks for 'torch._utils._rebuild_tensor_v2'"),
    "a bare storage": ([storage()], "holds a bare storage"),
    "a value": (b"K\x01)R", "calls a value"),
    "attributes of a function": (
        dump(REBUILD) + dump((None, {"__defaults__": (1,)})) + b"b",
        "attributes of 'torch._utils._rebuild_tensor_v2'",
    ),
    "an object": (dump(Global("collections.OrderedDict")) + b")\x81", "the pickle instruction NEWOBJ"),
    "an instance": (b"(ios\nsystem\n", "the pickle instruction INST"),
    "an extension": (b"\x82\x01", "the pickle instruction EXT1"),
    "another protocol": (b"\x80\x04N", "uses version 4 of the pickle format"),
    "bytes": (b"C\x01a", "the pickle instruction SHORT_BINBYTES"),
}


@pytest.mark.parametrize(("value", "words"), CODE.values(), ids=CODE)
def test_more_than_plain_values(value: Any, words: str) -> None:
    with pytest.raises(HoldsCodeError, match=words):
        read(value)


def test_attributes_of_an_ordered_dict_are_left_out() -> None:
    ordered = dump(Call("collections.OrderedDict"))
    assert read(ordered + dump({"items": 1, "_metadata": 2}) + b"b") == {}


def test_great_numbers_for_values_take_no_memory() -> None:
    assert read(b"Nr" + struct.pack("<I", 2**32 - 1)) is None  # Python's own machine makes room for all below


def test_one_list_in_many_places_is_gone_through_once() -> None:
    """Each list holds the one before it twice: 2**60 ways lead to the first."""
    opcodes = b"]q\x00"
    for number in range(60):
        opcodes += b"](h%ch%ceq%c" % (number, number, number + 1)
    assert len(read(b"(" + opcodes + b"t")) == 61


def test_a_list_in_itself() -> None:
    value = read(b"]q\x00h\x00a")
    assert value[0] is value


@settings(max_examples=200)
@given(opcodes=st.binary(max_size=40), after=st.sampled_from([b"", dump({"a": tensor()}), dump((1, "a"))]))
def test_any_bytes_are_read_or_refused(opcodes: bytes, after: bytes) -> None:
    try:
        value = read(after + opcodes)
    except (DamagedError, HoldsCodeError):
        return
    assert value is None or isinstance(value, (int, float, str, list, tuple, dict, np.ndarray, ForeignTensor))


def test_plain_keys() -> None:
    assert all(map(is_plain_key, ["a", 1, 1.5, True, None, (), ("a", 1)]))
    assert not any(map(is_plain_key, [b"a", ((1,),), OrderedDict(), np.float64(1)]))
