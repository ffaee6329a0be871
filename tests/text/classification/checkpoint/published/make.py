"""Write the model files of this version: `python make.py FORMAT`, once for each new format; the older ones stay.

Each file is small, and `answers.json` has what its model said of `TEXTS` when it was written.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from lightning.pytorch.callbacks import Callback

from flash import Trainer
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.exporting import export
from flash.text.classification.predictor import Predictor

HERE = Path(__file__).parent
TEXTS = ["a zebra eats a banana", "the hammer", "", "nothing of the kind"]
WORDS = {"fruit": "banana", "animal": "zebra", "tool": "hammer"}


class SaveAt(Callback):
    """Saves after a number of steps, as a run that is stopped there would have."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Save once."""
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def make_data() -> TextClassificationData:
    """Sixty-four texts with any of three words, and the labels that these mean."""
    texts, targets = [], []
    for row in range(64):
        present = [label for bit, label in enumerate(WORDS) if row >> bit & 1]
        texts.append(
            f"row {row % 5} tells of " + " and ".join([WORDS[label] for label in present] or ["nothing"])
        )
        targets.append(present)
    return TextClassificationData.from_lists(
        train_data=texts, train_targets=targets, labels=list(WORDS), batch_size=16
    )


def make_trainer(**keywords: Any) -> Trainer:
    """A quiet trainer on the processor."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    return Trainer(**{"accelerator": "cpu", "max_epochs": 2, **quiet, **keywords})


def make_encoder(folder: Path) -> Path:
    """A tiny BERT with random weights."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "of", "and", "tells", *WORDS.values()]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    make: Any = transformers.PreTrainedTokenizerFast
    make(tokenizer_object=inner, **names).save_pretrained(folder)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 32}
    shape |= {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": len(words)}
    transformers.BertModel(transformers.BertConfig(**shape, initializer_range=0.3)).save_pretrained(folder)
    return folder


def answer(path: Path) -> list[list[float]]:
    """(N, L) logits of `TEXTS`."""
    found: list[list[float]] = Predictor.load(path, precision="32").logits(TEXTS).tolist()
    return found


def main(version: str) -> None:
    """Write the files and what their models answer."""
    import tempfile

    answers = {}
    with tempfile.TemporaryDirectory() as scratch:
        options: dict[str, dict[str, Any]] = {
            "linear": {"backbone": "linear", "tolerance": 1e-3},
            "encoder": {"backbone": str(make_encoder(Path(scratch) / "bert")), "max_length": 16},
        }
        for kind, keywords in options.items():
            torch.manual_seed(1)
            np.random.seed(1)
            data = make_data()
            trainer = make_trainer(callbacks=[SaveAt(3, HERE / f"{kind}-{version}-stopped.ckpt")])
            model = TextClassifier(
                labels=list(WORDS),
                multi_label=True,
                learning_rate=1e-2 if kind == "encoder" else None,
                **keywords,
            )
            trainer.fit(model, datamodule=data)
            trainer.save_checkpoint(HERE / f"{kind}-{version}.pt", weights_only=True)
            for name in (f"{kind}-{version}.pt", f"{kind}-{version}-stopped.ckpt"):
                answers[name] = answer(HERE / name)
        name = f"onnx-{version}"
        export(HERE / f"encoder-{version}.pt", HERE / name, overwrite=True)
        answers[name] = answer(HERE / name)
    path = HERE / "answers.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **answers}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
