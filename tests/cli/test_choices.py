"""Options of the model and the strategy: refused before any data are read, in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace

from flash.__main__ import main
from flash.cli import options
from flash.cli.choices import as_strategy, model_options
from flash.cli.training import SOURCES
from flash.core.errors import FlashError
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder.module import EncoderModule

NO_DATA = ["from_csv", "--input_field", "text", "--target_fields", "labels", "--train_file", "nothing.csv"]
IDLE = "is for encoders, and the linear backbone has no use for it; leave it out, or choose another --model.backbone"
END = "see the end of flash text_classification --help"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mistake(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence that a command line is answered with, whose data are not there to be read."""
    assert main(["text_classification", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [sentence] = err.splitlines()
    assert "nothing.csv" not in sentence
    assert list(Path().iterdir()) == []
    return sentence.removeprefix("flash: error: ")


LINEAR: list[tuple[list[str], str]] = [
    (["--model.max_length", "64"], f"--model.max_length {IDLE}"),
    (["--model.max_length=128"], f"--model.max_length {IDLE}"),
    (["--model.pooling", "mean"], f"--model.pooling {IDLE}"),
    (["--model.long_text", "truncate"], f"--model.long_text {IDLE}"),
    (["--model.layer_decay", "0.9"], f"--model.layer_decay {IDLE}"),
    (["--half", "true"], f"--half {IDLE}"),
    (
        ["--model.pos_weight", "much"],
        "option pos_weight of the linear backbone is 'much'; expected numbers from",
    ),
    (
        ["--model.C", "1", "--model.regularization=2"],
        "--model.regularization and --model.C are both given, and --model.C is the new name of --model.regularization; "
        "leave --model.regularization out",
    ),
    (["--model.folds", "1"], "option folds of the linear backbone is 1; expected 0, or 2 to 100"),
    (["--model.char_ngrams", "[3, 2]"], "option char_ngrams of the linear backbone is (3, 2); expected (sho"),
    (
        ["--model.C", "[0.5, -1]"],
        "option C of the linear backbone is (0.5, -1.0); exp",
    ),
    (["--model.thresholds", "2"], "thresholds has 2.0 for 'every label'; expected a number in [0, 1]"),
    (["--model.thresholds", '{"toxic": -1}'], "thresholds has -1.0 for 'toxic'; expected a number in [0, 1]"),
    (["--model.thresholds", "[0.5, 3]"], "thresholds has 3.0 for 'label 1'; expected a number in [0, 1]"),
    (["--model.threshold_objective", "makro_f1"], "unknown objective 'makro_f1'; did you mean 'macro_f1'?"),
    (["--model.threshold_objective", '{"toxic": "recal>=1"}'], "unknown objective 'recal>=1'"),
    (["--model.loss_fn", "foccal"], "unknown loss 'foccal'; did you mean 'focal'?"),
    (["--model.backbone", "lineer"], "unknown backbone 'lineer'; did you mean 'linear'?"),
    (["--trainer.precision", "fp8"], "--trainer.precision fp8 is not understood; expected "),
    (["--strategy", "frozen"], "unknown finetuning strategy 'frozen'; did you mean 'freeze'?"),
    (
        ["--strategy", "freeze_unfreeze"],
        "the strategy 'freeze_unfreeze' is not complete; expected freeze_unf",
    ),
    (
        ["--strategy", '["freeze_unfreeze", "x"]'],
        "the strategy ('freeze_unfreeze', 'x') is not complete; exp",
    ),
    (["--strategy", "(freeze"], "unknown finetuning strategy '(freeze'; did you mean 'freeze'?"),
    (["--strategy", '[["freeze"]]'], f"the strategy [['freeze']] is not understood; {END}"),
    (["--strategy", "null"], "unknown finetuning strategy 'None'"),
    (
        ["--strategy", '["lora", 0]'],
        "option rank of the strategy 'lora' is 0; expected a whole number from 1 on",
    ),
    (
        ["--strategy", '("lora", {"rnk": 4})'],
        "unknown option of the strategy 'lora' 'rnk'; did you mean 'rank'?",
    ),
]


@pytest.mark.parametrize(("words", "sentence"), LINEAR, ids=[" ".join(words) for words, _ in LINEAR])
def test_mistakes(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = mistake([*words, *NO_DATA], capsys)
    assert found.startswith(sentence)
    if words[0] == "--strategy":
        assert found.endswith(END)


def test_a_mistake_in_a_file_of_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path.with_name(f"{tmp_path.name}.yaml")
    for written, sentence in (
        ("max_length: 64", f"--model.max_length {IDLE}"),
        ("poling: max", "unknown option 'model.poling'; did you mean 'model.pooling'?"),
        (
            "{C: 1.0, regularization: 2.0}",
            "model.regularization and model.C are both given, and model.C is the ",
        ),
    ):
        place.write_text(f"model:\n  {written}\n")
        assert mistake(["--config", str(place), *NO_DATA], capsys).startswith(sentence)


ENCODER: list[tuple[list[str], str]] = [
    (
        ["--model.folds", "4"],
        "--model.folds is for the linear backbone, and '{folder}' is an encoder; leave it out",
    ),
    (
        ["--model.pooling", "men"],
        "--model.pooling men is not understood; expected auto, mean, cls, max, last, model; see",
    ),
    (["--model.dropout", "1.5"], "option dropout of an encoder is 1.5; expected 0 or more and below 1"),
    (["--model.layer_decay", "2"], "--model.layer_decay 2.0 is not above 0 and at most 1"),
    (["--model.warmup", "-1"], "the warm-up -1.0 is not understood; expected a share below 1"),
    (["--model.learning_rate", "0"], "--model.learning_rate 0.0 is not a number above 0"),
    (["--model.optimizer", "Adamm"], "unknown optimizer 'Adamm'; did you mean 'Adam'?"),
    (["--model.lr_scheduler", "cosin"], "unknown learning rate schedule 'cosin'; did you mean 'cosine'?"),
    (["--model.lr_scheduler", '["StepLR", {}]'], "the learning rate schedule StepLR cannot be made: "),
    (["--model.pos_weight", "-1"], "--model.pos_weight -1 is not understood; expected a number above 0"),
    (
        ["--model.pos_weight", '{"toxic": 0}'],
        "the pos_weight of label 'toxic' is 0; expected a number above 0",
    ),
    (
        ["--model.loss_fn", "distribution_balanced", "--model.pos_weight", "2"],
        "the loss 'distribution_balanced' has",
    ),
    (["--model.max_length", "0"], "--model.max_length 0 is no number of tokens"),
    (
        ["--model.max_length", "41"],
        "--model.max_length 41, and '{folder}' has positions for 40 tokens; type --model.max_length 40 or less",
    ),
    (["--model.revision", "main"], "backbone '{folder}' is a folder, which has no revision 'main'"),
    (["--model.backbone", "./nowhere"], "there is no folder './nowhere', and it is no hub id either"),
]


@pytest.mark.parametrize(("words", "sentence"), ENCODER, ids=[" ".join(words) for words, _ in ENCODER])
def test_mistakes_with_an_encoder(
    encoder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    length = [] if "--model.max_length" in words else ["--model.max_length", "40"]
    found = mistake(["--model.backbone", str(encoder), *length, *words, *NO_DATA], capsys)
    assert found.startswith(sentence.format(folder=encoder))


def test_a_loss_that_does_not_fit_what_is_known_of_the_data(
    encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model.backbone", str(encoder), "--model.max_length", "40", "--model.loss_fn", "cross_entropy"]
    sentence = mistake([*words, *NO_DATA, "--multi_label", "true"], capsys)
    assert sentence.startswith(
        "the loss 'cross_entropy' is not for --multi_label true; expected one of: binary_cross"
    )
    assert main(["text_classification", *words, *NO_DATA]) == 2
    assert "nothing.csv does not exist" in capsys.readouterr().err


def test_an_encoder_s_options_reach_it(encoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{'zebra' if row % 2 else 'banana'} {row},{row % 2},{int(row % 3 == 0)}" for row in range(24)]
    Path("train.csv").write_text("\n".join(["text,animal,third", *rows]) + "\n")
    model = ["--model.backbone", str(encoder), "--model.max_length", "16", "--model.pooling", "max"]
    model += ["--model.loss_fn", "focal", "--model.pos_weight", '{"third": 2}', "--model.layer_decay", "0.9"]
    model += ["--model.lr_scheduler", '["StepLR", {"step_size": 1}]', "--strategy", '("lora", {"rank": 2})']
    trainer = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.precision", "auto"]
    data = [
        "from_csv",
        "--input_field",
        "text",
        "--target_fields",
        "animal",
        "third",
        "--train_file",
        "train.csv",
    ]
    words = ["text_classification", *model, *trainer, "--trainer.enable_progress_bar", "false", *data]
    assert main(words) == 0
    assert "LoRA trains" in caplog.text
    assert "precision=" in caplog.text
    again = ["--config", "text_classification_model.yaml", "--output", "again.pt"]
    assert main(["text_classification", *again, "--half", "true", *data]) == 0
    whole, half = (
        {key: value.dtype for key, value in checkpoint.load(name)["state_dict"].items() if value.dim() == 2}
        for name in ("text_classification_model.pt", "again.pt")
    )
    assert whole.keys() == half.keys()
    assert (set(whole.values()), set(half.values())) == ({torch.float32}, {torch.float16})
    for name in ("text_classification_model.pt", "again.pt"):
        backbone = TextClassifier.load_from_checkpoint(name).backbone
        assert isinstance(backbone, EncoderModule)
        assert (backbone.max_length, backbone.encoder.config.pooling) == (16, "max")
        assert backbone.training_options.layer_decay == 0.9


def test_each_backbone_gets_its_own_options() -> None:
    made: Any = Namespace
    encoder = made(model=made(backbone="./folder", max_length=64, word_ngrams=2, folds=4, pooling="auto"))
    assert model_options(encoder) == {
        "backbone": "./folder",
        "max_length": 64,
        "folds": 4,  # what is no default was typed, and stays
        "pooling": "auto",
    }
    linear = made(model=made(backbone="linear", word_ngrams=2, pooling="auto", dropout=0.5))
    assert model_options(linear) == {"backbone": "linear", "word_ngrams": 2, "dropout": 0.5}


@pytest.mark.parametrize(
    ("typed", "strategy"),
    [
        ("freeze", "freeze"),
        (["lora", 4], ("lora", 4)),
        (["unfreeze_milestones", [[1, 3], 2]], ("unfreeze_milestones", [[1, 3], 2])),
    ],
)
def test_strategies_as_typed(typed: Any, strategy: Any) -> None:
    assert as_strategy(typed) == strategy


@pytest.mark.parametrize("typed", [[], {"a": 1}, 3])
def test_what_is_no_strategy(typed: Any) -> None:
    with pytest.raises(
        FlashError,
        match="(is not understood|is empty|unknown finetuning strategy).*; see the end of flash text_classification --help",
    ):
        as_strategy(typed)


@pytest.mark.parametrize(
    "words", [["--strategy", '("lora", {"rank": 4})'], ["--strategy=('lora', {'rank': 4})"]]
)
def test_a_strategy_may_be_spelled_as_the_library_s_sentences_do(words: list[str]) -> None:
    given = options.parse(SOURCES, [*words, "from_sample"])[1]
    assert as_strategy(given.strategy) == ("lora", {"rank": 4})
