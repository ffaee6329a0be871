"""Two trained model files, made once, and the command in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest

from flash import Trainer
from flash.text import TextClassificationData, TextClassifier

LABELS = ["animal", "fruit", "tool"]
WORDS = {"animal": "zebra", "fruit": "banana", "tool": "hammer"}


def _train(path: Path, targets: Callable[[int], list[str] | str], *, multi_label: bool) -> Path:
    texts, wanted = [], []
    for row in range(160):
        present = targets(row)
        names = present if isinstance(present, list) else [present]
        texts.append(f"row {row} has " + " and ".join([WORDS[name] for name in names] or ["nothing"]))
        wanted.append(present)
    data = TextClassificationData.from_lists(
        train_data=texts, train_targets=wanted, labels=LABELS, multi_label=multi_label, val_split=0.25
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=path.parent,
    )  # fmt: skip
    trainer.fit(TextClassifier(labels=data.labels, multi_label=multi_label), datamodule=data)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-label model that knows an animal, a fruit and a tool when it reads one."""
    path = tmp_path_factory.mktemp("model") / "multi.pt"
    return _train(
        path, lambda row: [name for bit, name in enumerate(LABELS) if row >> bit & 1], multi_label=True
    )


@pytest.fixture(scope="session")
def single_label_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same words that gives each text exactly one label."""
    path = tmp_path_factory.mktemp("model") / "single.pt"
    return _train(path, lambda row: LABELS[row % 3], multi_label=False)


@pytest.fixture(scope="session")
def flash() -> Callable[..., "subprocess.Popen[bytes]"]:
    """Starts the command in a process of its own, which minds Ctrl-C even where the tests run in the background."""
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and scripts' & hand on 'ignore'\n"
        "from flash.__main__ import main\nsys.exit(main())"
    )

    def start(*words: str | Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", program, *map(str, words)]
        return subprocess.Popen(command, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE)

    return start


@pytest.fixture(scope="session")
def imported() -> Callable[..., set[str]]:
    """What a command imports of the heavy packages, asked in a process of its own; it must exit with 0."""

    def ask(*words: str | Path) -> set[str]:
        program = (
            "import sys\nfrom flash.__main__ import main\ncode = main(sys.argv[1:])\n"
            "print('imported:', *sys.modules, file=sys.stderr)\nsys.exit(code)"
        )
        command = [sys.executable, "-c", program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
        modules = {name.split(".")[0] for name in done.stderr.partition("imported:")[2].split()}
        assert "flash" in modules
        return modules & {
            "lightning",
            "numba",
            "numpy",
            "pandas",
            "pyarrow",
            "pytorch_lightning",
            "scipy",
            "torch",
            "tqdm",
            "transformers",
        }

    return ask


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random BERT with positions for 40 tokens and a head without labels."""
    import torch

    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "a", "zebra", "banana"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(words[:4])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(
        vocab_size=len(words), pad_token_id=1, max_position_embeddings=40, **shape
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder
