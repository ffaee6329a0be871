"""An encoder as an ONNX graph: written by torch, and its matrices in eight bits by onnxruntime.

Imports torch; onnx, onnxscript and onnxruntime only when a graph is written; of the project the encoder and what
`onnx` reads.
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
"""The version of ONNX's operators that torch writes without converting."""
QUANTIZED = ("MatMul", "Gemm")
"""The operators whose weights become int8: embeddings and norms would lose more than they save."""
NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "transformers")
"""Loggers and modules that speak of their own inside while a graph is written."""

Inputs = tuple[torch.Tensor, torch.Tensor]


class Network(nn.Module):
    """An encoder whose operations do not depend on the size of a batch, as a graph needs it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, L), as the encoder's of rows that have a token each, as those of `tokenize` do.

        Pooling that takes one token gathers it: counting rows would make their number a constant.
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
    """Write the network as `torch.export` sees it: its code is read with sizes that stay symbols, which takes long."""
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
    passes.ClearMetadataAndDocStringPass()(program.model)  # which lines of which files on this machine
    program.save(path)


def by_trace(network: nn.Module, example: Inputs, path: Path) -> None:
    """Write what the network computes of the example; transformers sees to it that its masks keep all sizes."""
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
"""How a graph can be written. The first is torch's older way, thirty times as fast as the other on a small encoder;
whichever is taken, its answers to texts of all sizes are compared with the model's."""


def write_graph(
    way: Callable[[nn.Module, Inputs, Path], None], encoder: Encoder, example: Inputs, path: Path
) -> None:
    """Write `encoder` in evaluation mode to `path`, in float32.

    Args:
        way: one of `WAYS`.
        encoder: the network; is as it was afterwards.
        example: token ids (B, T) and mask (B, T), with B and T above 1, and padding.
        path: of the file; weights beyond 2 GB stand beside it, in one file of its name and `.data`.
    """
    model = encoder.model
    before = getattr(model.config, "_attn_implementation", None)
    before_files = set(path.parent.iterdir())
    try:
        if before not in (None, "eager"):
            model.set_attn_implementation("eager")  # plain products, which every version of the operators has
        with torch.no_grad(), hushed():
            way(Network(encoder).eval(), example, path)
        _gather_weights(path, before_files)
    finally:
        if before not in (None, "eager"):
            model.set_attn_implementation(before)


def _gather_weights(path: Path, others: set[Path]) -> None:
    """Put weights into one file where a graph beyond 2 GB has each in one of its own, as torch's older way writes it.

    Args:
        path: of the graph.
        others: what else is in its folder, and not the graph's.
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
    """Turn the matrices of a folder's graph into int8: one scale a column, 7 bits, activations as they come.

    The head keeps its float32: it is small, and every label depends on it. Reduced range, since processors without
    VNNI add products in 16 bits, which would overflow.
    """
    quantization = require("onnxruntime.quantization", "onnx")
    onnx = require("onnx", "onnx")
    large = (folder / f"{GRAPH}.data").is_file()  # weights stand beside the graph, and do so afterwards
    with tempfile.TemporaryDirectory(dir=folder) as work, hushed():
        prepared, result = Path(work) / "prepared.onnx", Path(work) / GRAPH
        # folds transposed weights into constants, which alone are quantized
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
            nodes_to_exclude=[head, f"{head}_MatMul"],  # as it is called once it is no Gemm any more
            use_external_data_format=large,
        )
        for old in folder.glob(f"{GRAPH}*"):
            old.unlink()
        for made in Path(work).glob(f"{GRAPH}*"):
            made.replace(folder / made.name)


@contextmanager
def hushed() -> Iterator[None]:
    """Hold back what the exporters tell of their own code: deprecations, and operators that they leave out."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # that sizes might be taken for constants, of any code: whether they were is seen by the answers
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
