"""A TFLite net -> the bytes of a .tflite file, over the flatbuffer schema.

The flatbuffer builder would copy every weight two or three times. But in a flatbuffer what is
pointed at may lie anywhere behind the pointer: so the builder makes the tables only, the
weights are appended behind them, each copied once, and the pointers are filled in afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwbench.errors import GraphError
from hwbench.lower.tflite_net import Net, Operator, Quant, Tensor
from hwbench.lower.tflite_versions import version_of

_VERSION = 3
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of a buffer's data, as the schema demands
_MOST_BYTES = 2**31 - 1  # a flatbuffer's pointers reach no further
_MOST_OLD_CODE = 127  # operators above it have no number in the field of old runtimes


def serialise(net: Net) -> bytes:
    """The file's content. Raises :class:`GraphError` for a net of 2 GiB or more."""
    size = sum(t.data.nbytes for t in net.tensors if t.data is not None)
    if size > _MOST_BYTES:
        raise GraphError(
            f"graph {net.name!r}: its weights take {size / 2**30:.1f} GiB, and a .tflite file "
            "holds less than 2: make it smaller"
        )
    return _Writer(net).finish()


class _Writer:
    def __init__(self, net: Net) -> None:
        self.net = net
        self.builder = flatbuffers.Builder(1 << 16)
        self.shared: dict[object, int] = {}
        self.pointers: list[tuple[int, Any]] = []  # from the end of the tables, to what

    def finish(self) -> bytes:
        net, b = self.net, self.builder
        codes = sorted({self._code(op) for op in net.operators})
        buffers = self._offsets([self._buffer(None)] + [self._buffer(t) for t in self._stored()])
        subgraphs = self._offsets([self._subgraph(codes)])
        code_table = self._offsets([self._operator_code(*code) for code in codes])
        signatures = self._offsets([self._signature()])
        model = self._table(
            "Model",
            Version=_VERSION,
            OperatorCodes=code_table,
            Subgraphs=subgraphs,
            Description=self._text("hwbench"),
            Buffers=buffers,
            SignatureDefs=signatures,
        )
        b.Finish(model, file_identifier=_IDENTIFIER)
        return self._with_data(b.Output())

    # -- tables -------------------------------------------------------------------------------

    def _table(self, table: str, **fields: Any) -> int:
        getattr(schema, f"{table}Start")(self.builder)
        for name, value in fields.items():
            if value is not None:
                getattr(schema, f"{table}Add{name}")(self.builder, value)
        end: int = getattr(schema, f"{table}End")(self.builder)
        return end

    def _text(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def _offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _numbers(self, values: Sequence[int] | np.ndarray, dtype: type = np.int32) -> int:
        """A vector of numbers; equal ones are written once."""
        array: np.ndarray = np.asarray(values, dtype)
        key = (array.dtype.str, array.tobytes())
        if key not in self.shared:
            self.shared[key] = self.builder.CreateNumpyVector(array)
        return self.shared[key]

    def _stored(self) -> list[Tensor]:
        return [t for t in self.net.tensors if t.data is not None]

    def _buffer(self, tensor: Tensor | None) -> int:
        """A buffer whose pointer to its data waits for :meth:`_with_data`."""
        b = self.builder
        schema.BufferStart(b)
        if tensor is not None and tensor.data is not None:
            b.PrependUint32Slot(0, 1, 0)  # any number but the default
            self.pointers.append((b.Offset(), tensor.data))
        return int(schema.BufferEnd(b))

    def _subgraph(self, codes: Sequence[tuple[str, int]]) -> int:
        net = self.net
        number, tensors = 0, []
        for tensor in net.tensors:
            number += tensor.data is not None
            tensors.append(self._tensor(tensor, number if tensor.data is not None else 0))
        operators = [self._operator(op, codes.index(self._code(op))) for op in net.operators]
        return self._table(
            "SubGraph",
            Tensors=self._offsets(tensors),
            Inputs=self._numbers(net.inputs),
            Outputs=self._numbers(net.outputs),
            Operators=self._offsets(operators),
            Name=self._text(net.name),
        )

    def _tensor(self, tensor: Tensor, buffer: int) -> int:
        quantization = None if tensor.quant is None else self._quantization(tensor.quant)
        shape, name = self._numbers(tensor.shape), self._text(tensor.name)
        return self._table(
            "Tensor",
            Shape=shape,
            Type=getattr(schema.TensorType, tensor.dtype.upper()),
            Buffer=buffer,
            Name=name,
            Quantization=quantization,
            HasRank=True,
        )

    def _quantization(self, quant: Quant) -> int:
        zeros = np.full(len(quant.scale), quant.zero_point, np.int64)
        return self._table(
            "QuantizationParameters",
            Scale=self._numbers(quant.scale, np.float32),
            ZeroPoint=self._numbers(zeros, np.int64),
            QuantizedDimension=quant.axis,
        )

    def _operator(self, op: Operator, code: int) -> int:
        options = number = None
        if op.table:
            key = (op.table, tuple(op.options.items()))
            if key not in self.shared:
                self.shared[key] = self._table(op.table, **op.options)
            options, number = self.shared[key], getattr(schema.BuiltinOptions, op.table)
        inputs, outputs = self._numbers(op.inputs), self._numbers([op.output])
        return self._table(
            "Operator",
            OpcodeIndex=code,
            Inputs=inputs,
            Outputs=outputs,
            BuiltinOptionsType=number,
            BuiltinOptions=options,
        )

    def _code(self, op: Operator) -> tuple[str, int]:
        return op.kind, version_of(self.net, op)

    def _operator_code(self, kind: str, version: int) -> int:
        code = getattr(schema.BuiltinOperator, kind)
        return self._table(
            "OperatorCode",
            DeprecatedBuiltinCode=min(code, _MOST_OLD_CODE),
            BuiltinCode=code,
            Version=version,
        )

    def _signature(self) -> int:
        net = self.net
        maps = []
        for numbers in (net.inputs, net.outputs):
            names = [(self._text(net.tensors[i].name), i) for i in numbers]
            rows = [self._table("TensorMap", Name=name, TensorIndex=i) for name, i in names]
            maps.append(self._offsets(rows))
        key = self._text("serving_default")
        return self._table(
            "SignatureDef", Inputs=maps[0], Outputs=maps[1], SignatureKey=key, SubgraphIndex=0
        )

    # -- data ---------------------------------------------------------------------------------

    def _with_data(self, tables: bytearray) -> bytes:
        """The tables, and behind them every buffer's data as a vector of bytes."""
        pieces: list[Any] = [tables]
        end = len(tables)
        for from_end, data in self.pointers:
            pad = -(end + 4) % _ALIGNMENT
            length = end + pad  # where the vector begins, with its length
            pointer = len(tables) - from_end
            struct.pack_into("<I", tables, pointer, length - pointer)
            array = np.ascontiguousarray(data)
            pieces += [bytes(pad), struct.pack("<I", array.nbytes), _bytes_of(array)]
            end = length + 4 + array.nbytes
        if end > _MOST_BYTES:
            raise GraphError(f"graph {self.net.name!r}: too large for a .tflite file (2 GiB)")
        return b"".join(pieces)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8)
