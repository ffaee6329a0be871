"""Export an encoder as an ONNX graph, with torch, and quantize its weights to int8, with onnxruntime.

Imports torch; onnx, onnxscript and onnxruntime only when a graph is written.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from flash.core.extras import require
from flash.text.classification.backbones.encoder.architecture import POOLINGS
from flash.text.classification.backbones.encoder.model import Encoder
from flash.text.classification.backbones.encoder.onnx_runtime import GRAPH, INPUTS, OUTPUT

OPSET = 18
"""The ONNX operator set that torch writes without conversion."""
QUANTIZED = ("MatMul", "Gemm")
"""Operators whose weights are quantized; for embeddings and norms the loss would outweigh the gain."""
NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "transformers")
"""Loggers and modules that log internals while a graph is written."""

Inputs = tuple[torch.Tensor, torch.Tensor]


class Network(nn.Module):
    """An encoder in a form that can be exported: its operations do not depend on the batch size."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L), like the encoder's for rows with at least one token.

        Pooling of a single token uses gather, because indexing by row numbers would make the batch size a constant.
        """
        encoder = self.encoder
        output = encoder.model(input_ids=input_ids, attention_mask=attention_mask)
        if encoder.whole:
            features = output.logits
        elif encoder.pooling in ("cls", "last"):
            hidden = output.last_hidden_state
            order = torch.arange(hidden.shape[1], device=hidden.device)
            places = (attention_mask if encoder.pooling == "cls" else order * attention_mask).argmax(1)
            features = hidden.gather(1, places[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        else:
            features = POOLINGS[str(encoder.pooling)](output.last_hidden_state, attention_mask)
        logits: torch.Tensor = encoder.head(features)
        return logits


def by_graph(network: nn.Module, example: Inputs, path: Path) -> None:
    """Write the network with `torch.export`, which analyses its code with symbolic sizes and takes long."""
    require("onnxscript", "onnx")
    import onnx_ir.passes.common as passes

    dynamic = torch.export.Dim.DYNAMIC
    program = cast(
        Any,
        torch.onnx.export(
            network,
            (),
            kwargs=dict(zip(INPUTS, example, strict=True)),
            dynamo=True,
            verbose=False,
            dynamic_shapes={name: {0: dynamic, 1: dynamic} for name in INPUTS},
            output_names=[OUTPUT],
            opset_version=OPSET,
        ),
    )
    passes.ClearMetadataAndDocStringPass()(program.model)  # remove paths of this machine
    program.save(path)


def by_trace(network: nn.Module, example: Inputs, path: Path) -> None:
    """Write the network by tracing an example; transformers' masks keep their sizes dynamic."""
    torch.onnx.export(
        network,
        example,
        str(path),
        dynamo=False,
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_axes={**{name: {0: "batch", 1: "tokens"} for name in INPUTS}, OUTPUT: {0: "batch"}},
        opset_version=OPSET,
    )


WAYS: tuple[Callable[[nn.Module, Inputs, Path], None], ...] = (by_trace, by_graph)
"""Exporters, in the order in which they are tried. The first is torch's older one, thirty times as fast for a small
encoder. The graph's logits for texts of all sizes are compared with the model's in any case."""


def write_graph(
    way: Callable[[nn.Module, Inputs, Path], None], encoder: Encoder, example: Inputs, path: Path
) -> None:
    """Write `encoder` in evaluation mode to `path`, in float32.

    Args:
        way: one of `WAYS`.
        encoder: the network; unchanged afterwards.
        example: token ids (B, T) and mask (B, T), with B and T above 1, and padding.
        path: the file; weights beyond 2 GB are written beside it, to a file with the additional ending `.data`.
    """
    model = encoder.model
    before = getattr(model.config, "_attn_implementation", None)
    before_files = set(path.parent.iterdir())
    try:
        if before not in (None, "eager"):
            model.set_attn_implementation("eager")  # matrix products, which every operator set supports
        with torch.no_grad(), hushed():
            way(Network(encoder).eval(), example, path)
        _gather_weights(path, before_files)
    finally:
        if before not in (None, "eager"):
            model.set_attn_implementation(before)


def _gather_weights(path: Path, others: set[Path]) -> None:
    """Combine the weights in one file: torch's older exporter writes a file per tensor for graphs beyond 2 GB.

    Args:
        path: the graph.
        others: files in its folder that do not belong to the graph.
    """
    data = path.with_name(f"{path.name}.data")
    scattered = set(path.parent.iterdir()) - others - {path, data}
    if not scattered:
        return
    onnx = require("onnx", "onnx")
    graph = onnx.load(str(path))
    for file in scattered:
        file.unlink()
    path.unlink()
    onnx.save_model(graph, str(path), save_as_external_data=True, location=data.name)


def quantize(folder: Path) -> None:
    """Quantize the matrices of a folder's graph to int8, with one scale per column and dynamic activations.

    The head stays in float32: it is small, and every label depends on it. The range is reduced to 7 bits, because
    processors without VNNI add products in 16 bits, which would overflow.
    """
    quantization = require("onnxruntime.quantization", "onnx")
    onnx = require("onnx", "onnx")
    large = (folder / f"{GRAPH}.data").is_file()  # weights in a separate file, before and after
    with tempfile.TemporaryDirectory(dir=folder) as work, hushed():
        prepared, result = Path(work) / "prepared.onnx", Path(work) / GRAPH
        # fold transposed weights into constants, because only constants are quantized
        quantization.quant_pre_process(
            str(folder / GRAPH),
            str(prepared),
            skip_symbolic_shape=True,
            save_as_external_data=large,
            all_tensors_to_one_file=True,
            external_data_location=f"{prepared.name}.data",
        )
        nodes = onnx.load(str(prepared), load_external_data=False).graph.node
        head = [node.name for node in nodes if node.op_type in QUANTIZED][-1]
        quantization.quantize_dynamic(
            prepared,
            result,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[head, f"{head}_MatMul"],  # its name after a Gemm is replaced by a MatMul
            use_external_data_format=large,
        )
        for old in folder.glob(f"{GRAPH}*"):
            old.unlink()
        for made in Path(work).glob(f"{GRAPH}*"):
            made.replace(folder / made.name)


@contextmanager
def hushed() -> Iterator[None]:
    """Suppress the exporters' messages about their own code, such as deprecations."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # warnings that sizes may become constants; comparing the logits shows whether they did
        warnings.filterwarnings("ignore", category=cast(Any, torch.jit).TracerWarning)
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based", DeprecationWarning)
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.filterwarnings(
                "ignore", category=category, module=r"(torch|onnx|onnxscript|onnx_ir|transformers)\b"
            )
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
