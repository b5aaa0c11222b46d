"""Reads the weights of an ONNX file, and writes graphs for onnxruntime.

It knows the few fields of onnx.proto that this takes. The package `onnx` knows them all, but has 31 MB and needs
protobuf, which stays out of `stt_server.audio`. Numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stt_server.audio.mono import FloatArray

_IR_VERSION, _OPSET = 8, 18
_FLOAT, _INT64 = 1, 7
"""TensorProto.DataType."""
_ATTRIBUTE_INT, _ATTRIBUTE_INTS = 2, 7
"""AttributeProto.AttributeType."""
_VARINT, _BYTES = 0, 2
"""Protobuf's wire types; the others don't occur in these fields."""


def read_weights(model: bytes) -> dict[str, FloatArray]:
    """The float32 initializers of an ONNX model, by name."""
    (graph,) = _fields(model)[7]
    found = {}
    for initializer in _fields(graph)[5]:
        tensor = _fields(initializer)
        if tensor[2] == [_FLOAT]:
            found[tensor[8][0].decode()] = np.frombuffer(tensor[9][0], dtype="<f4").reshape(tensor[1])
    return found


class Graph:
    """A graph of ONNX operators on named values."""

    def __init__(self) -> None:
        self._fields: list[tuple[int, bytes]] = [(2, b"graph")]
        self._values = 0

    def input(self, name: str, shape: Sequence[int | str]) -> None:
        """Declare a float32 input; a size that is a string may vary."""
        self._fields.append((11, _value_info(name, shape)))

    def output(self, name: str, shape: Sequence[int | str]) -> None:
        """Declare that the value of this name is a float32 output."""
        self._fields.append((12, _value_info(name, shape)))

    def constant(self, values: npt.ArrayLike) -> str:
        """Add a constant, int64 if `values` are integers and float32 otherwise; returns its name."""
        array = np.asarray(values)
        kind, dtype = (_INT64, "<i8") if array.dtype.kind == "i" else (_FLOAT, "<f4")
        name = self._new_name()
        sizes = [(1, size) for size in array.shape]
        self._fields.append((5, _message(*sizes, (2, kind), (8, name), (9, array.astype(dtype).tobytes()))))
        return name

    def apply(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: int | Sequence[int]) -> str:
        """Add an operator; returns the name of its first output.

        Args:
            inputs: names of values; "" for an optional one that is absent.
            outputs: names for the outputs; by default there is one, with a new name.
        """
        outputs = outputs or [self._new_name()]
        values = [(number, name) for number, names in ((1, inputs), (2, outputs)) for name in names]
        self._fields.append(
            (1, _message(*values, (4, operator), *((5, _attribute(*each)) for each in attributes.items())))
        )
        return outputs[0]

    def model(self) -> bytes:
        """The graph as an ONNX model."""
        return _message((1, _IR_VERSION), (8, _message((1, ""), (2, _OPSET))), (7, _message(*self._fields)))

    def _new_name(self) -> str:
        self._values += 1
        return f"value_{self._values}"


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _message((1, name), (20, _ATTRIBUTE_INT), (3, value))
    return _message((1, name), (20, _ATTRIBUTE_INTS), *((8, each) for each in value))


def _value_info(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = [(1, _message((1 if isinstance(size, int) else 2, size))) for size in shape]
    tensor = _message((1, _FLOAT), (2, _message(*sizes)))
    return _message((1, name), (2, _message((1, tensor))))


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """Encode a message of protobuf from its fields' numbers and values; integers are at least 0."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint(number << 3 | _VARINT), _varint(value)]
        else:
            data = value.encode() if isinstance(value, str) else value
            parts += [_varint(number << 3 | _BYTES), _varint(len(data)), data]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Decode one level of a message of protobuf: the values of each field, by its number."""
    found: dict[int, list[Any]] = defaultdict(list)
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if tag & 7 == _BYTES:
            found[tag >> 3].append(message[at : at + value])
            at += value
        elif tag & 7 == _VARINT:
            found[tag >> 3].append(value)
        else:
            raise ValueError(f"field {tag >> 3} has wire type {tag & 7}; expected {_VARINT} or {_BYTES}")
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at an offset, and the offset after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
