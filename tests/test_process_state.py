"""What belongs to the whole process stays the user's: nothing here changes it, neither on import nor while at work."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import csv, gc, os, sys, warnings
import lightning.pytorch, numba, numpy, pyarrow, torch, transformers, uvicorn  # which may change what they like

OTHERS = ("lightning.pytorch", "numba", "numpy", "torch", "torch.nn.functional", "uvicorn", "warnings")

def state():
    attributes = {
        (name, key): id(value) for name in OTHERS for key, value in vars(sys.modules[name]).items() if callable(value)
    }
    hidden = {name for name, module in sys.modules.items() if module is None}
    collector = (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count())
    filters = [(rule[0], str(rule[1]), rule[2], str(rule[3]), rule[4]) for rule in warnings.filters
        if "torch.optim.lr_scheduler" not in str(rule[3])  # which Lightning adds as it first trains
    ]
    return attributes, hidden, collector, filters, dict(os.environ), [csv.field_size_limit()], numpy.geterr()

def check(when, but=None):
    for index, (before, now) in enumerate(zip(BEFORE, state(), strict=True)):
        if index == but:
            continue
        if isinstance(before, dict):  # lazy modules grow, and nothing that was there is another
            now = {key: now.get(key) for key in before}
        if before != now:
            old, new = ({*map(repr, each.items() if isinstance(each, dict) else each)} for each in (before, now))
            sys.exit(f"{when}: {sorted(old - new)} became {sorted(new - old)}")

BEFORE = state()
import flash
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import Predictor
check("import")

class Looks(lightning.pytorch.Callback):
    # Lightning itself has a filter of its own in force while it trains
    def on_train_batch_end(self, *_):
        check("fit", but=3)
    def on_predict_batch_end(self, *_):
        check("predict")

words = {"fruit": "banana", "tool": "hammer"}
targets = [[name for bit, name in enumerate(words) if row >> bit & 1] for row in range(48)]
texts = ["row " + " ".join(words[name] for name in names) for names in targets]
unseen = TextClassificationData.from_lists(predict_data=texts[:3])
for backbone, options in (("linear", {}), (sys.argv[1], {"max_length": 16})):
    data = TextClassificationData.from_lists(train_data=texts, train_targets=targets, val_split=0.25)
    model = TextClassifier(backbone=backbone, labels=data.labels, multi_label=True, **options)
    trainer = flash.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[Looks()]
    )
    trainer.finetune(model, datamodule=data, strategy="no_freeze")
    trainer.predict(model, datamodule=unseen)
    trainer.save_checkpoint("model.pt")
    check(f"after a fit of {backbone}")
    Predictor.load("model.pt").predict(texts[:3])
    check(f"after a prediction of {backbone}")
"""


def test_nothing_of_the_process_is_changed(encoder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(encoder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A tiny random BERT."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("uvicorn")
    folder = tmp_path / "bert"
    vocabulary = {word: row for row, word in enumerate(["[PAD]", "[UNK]", "row", "banana", "hammer"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(
        transformers.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=20, **shape)
    ).save_pretrained(folder)
    return folder


def test_no_module_replaces_what_is_others() -> None:
    """The words by which it would be done, in the library; a command's own process and its own loggers aside."""
    forbidden = (
        "sys.modules[",
        "gc.disable",
        "gc.freeze",
        "showwarning =",
        "warnings.simplefilter",
        "field_size_limit",
    )
    root = Path(__file__).parent.parent / "src" / "flash"
    found = [
        (str(path.relative_to(root)), word)
        for path in sorted(root.rglob("*.py"))
        for word in forbidden
        if word in path.read_text()
    ]
    assert found == [("__main__.py", "showwarning =")]  # the `flash` command's
