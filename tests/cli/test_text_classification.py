"""`flash text_classification`: from one command to a table, a model and the next commands."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked

from flash.__main__ import main
from flash.cli import options, saving
from flash.cli import training as command
from flash.core.errors import DownloadError
from flash.text import TextClassifier
from flash.text.classification.backbones.linear.model import Linear
from flash.text.classification.predictor import Predictor


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def comments() -> Path:
    """A CSV file in the shape of the toxic comments."""
    with Path("comments.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "comment_text", "toxic", "obscene"])
        for row in range(200):
            text = f"comment {row} is {'rude' if row % 4 == 0 else 'kind'} and {'dirty' if row % 8 == 0 else 'clean'}"
            writer.writerow([row, text, int(row % 4 == 0), int(row % 8 == 0)])
    return Path("comments.csv")


LOADING = "flash: loading PyTorch and Lightning, which takes some seconds"

CSV = [
    "from_csv",
    "--input_field",
    "comment_text",
    "--target_fields",
    "toxic",
    "obscene",
    "--train_file",
    "comments.csv",
]


def run(*words: str) -> int:
    return main(
        [
            "text_classification",
            "--trainer.accelerator",
            "cpu",
            "--trainer.enable_progress_bar",
            "false",
            *words,
        ]
    )


def test_from_sample_trains_saves_and_says_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("from_sample", "--rows", "400") == 0
    printed = capsys.readouterr().out
    for expected in [
        "360",
        "Validation: 40 rows, 6 labels",
        "toxic",
        "thresh",
        "before calibration",
        "synthetic",
        "flash predict",
        "flash evaluate",
    ]:
        assert expected in printed
    assert Predictor.load("text_classification_model.pt").labels[0] == "toxic"
    assert sorted(path.name for path in Path().iterdir()) == [
        "text_classification_model.pt",
        "text_classification_model.yaml",
    ]


def test_from_csv_holds_out_a_tenth_unless_told_otherwise(
    comments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--output", "runs/model.pt", *CSV) == 0
    printed = capsys.readouterr().out
    assert "Validation: 20 rows, 2 labels" in printed
    assert TextClassifier.load_from_checkpoint("runs/model.pt").labels == ["toxic", "obscene"]
    assert run(*CSV, "--val_split", "50") == 0
    assert "Validation: 50 rows, 2 labels" in capsys.readouterr().out
    assert run(*CSV, "--val_file", "comments.csv", "--test_file", "comments.csv") == 0
    printed = capsys.readouterr().out
    assert "Validation: 200 rows" in printed
    assert "Test: 200 rows" in printed


def test_the_saved_config_makes_the_same_model(comments: Path) -> None:
    assert run("--model.thresholds", "0.25", "--model.C", "2.0", "--output", "one.pt", *CSV) == 0
    assert run("--config", "one.yaml", "--output", "two.pt", *CSV) == 0
    one, two = Predictor.load("one.pt"), Predictor.load("two.pt")
    assert isinstance(one.backbone, Linear) and isinstance(two.backbone, Linear)  # noqa: PT018
    assert one.backbone.config == two.backbone.config
    assert one.backbone.config.C == 2.0
    assert two.thresholds.tolist() == [0.25, 0.25]
    assert (one.logits(["a rude comment"]) == two.logits(["a rude comment"])).all()


RENAMED = "flash: warning: {0}regularization is now called {0}C{1}; the next release will not know {2}"


@pytest.mark.filterwarnings("always::FutureWarning")
def test_options_by_their_earlier_names(comments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = ["--model.regularization", "2.0", "--model.positive_weight", '{"obscene": 3}']
    assert run(*earlier, "--output", "one.pt", *CSV) == 0
    also = ", and --model.positive_weight is now called --model.pos_weight"
    assert warnings_of(capsys) == [RENAMED.format("--model.", also, "these names")]
    saved = Path("one.yaml").read_text()
    assert ("C: 2.0" in saved, "obscene: 3" in saved) == (True, True)
    assert not any(name in saved for name in ("regularization", "positive_weight"))
    # as version 0.1.0 saved it, with the default of an option that has another name now
    Path("earlier.yaml").write_text(
        "model:\n  backbone: linear\n  regularization: 2.0\n  positive_weight: 1.0\n"
    )
    assert run("--config", "earlier.yaml", "--output", "two.pt", *CSV) == 0
    assert warnings_of(capsys) == [RENAMED.format("model.", "", "this name")]
    assert run("--config", "earlier.yaml", "--model.C", "4", "--output", "three.pt", *CSV) == 0
    assert warnings_of(capsys) == [RENAMED.format("model.", "", "this name")]
    configs: list[Any] = [
        vars(Predictor.load(f"{name}.pt").backbone)["config"] for name in ("one", "two", "three")
    ]
    assert [(config.C, config.pos_weight) for config in configs] == [(2, (1, 3)), (2, None), (4, None)]


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The warnings of the last command."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("flash: warning")]


def test_a_file_of_options_of_the_model_alone_is_refused_with_the_new_name(
    comments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.yaml").write_text("regularization: 2.0\n")
    assert run("--model", "model.yaml", *CSV) == 2
    assert "model.regularization is now called model.C; rename it in the file" in capsys.readouterr().err


def test_print_config_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--trainer.precision", "32", "--print_config", "from_sample")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "precision: 32" in printed
    assert "rows: 3000" in printed
    assert list(Path().iterdir()) == []


def test_from_toxic_reads_the_file_that_is_there(comments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "id,comment_text,toxic,severe_toxic,obscene,threat,insult,identity_hate\n"
    Path("data/jigsaw_toxic_comments").mkdir(parents=True)
    columns = {row: ",".join(str(int(row % n == 0)) for n in range(2, 8)) for row in range(40)}
    rows = [f"{row},text number {row},{targets}\n" for row, targets in columns.items()]
    Path(saving.TOXIC_FILE).write_text(header + "".join(rows))
    assert run("from_toxic", "--val_split", "10") == 0
    assert "Validation: 10 rows, 6 labels" in capsys.readouterr().out


def test_from_toxic_offline_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(url: str, path: str) -> None:
        assert (url, path) == (command.TOXIC_URL, "data/")
        raise DownloadError("no network")

    monkeypatch.setattr(command, "download_data", refuse)
    assert run("from_toxic") == 2
    sentence = capsys.readouterr().err
    assert "could not be downloaded (no network)" in sentence
    assert "put the challenge's train.csv at data/jigsaw_toxic_comments/train.csv" in sentence
    assert "from_sample, which needs no network" in sentence
    assert len(sentence.splitlines()) == 1


def test_all_rows_are_trained_on_if_asked(comments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CSV, "--val_split", "0") == 0
    printed = capsys.readouterr().out
    assert "train:         200 texts" in printed
    assert "Cross-validation on the training rows: 200 rows, 2 labels" in printed
    assert "Validation:" not in printed
    assert "Saved text_classification_model.pt" in printed
    assert run("--model.folds", "0", *CSV, "--val_split", "0") == 0
    printed = capsys.readouterr().out
    assert "Nothing was measured, as folds=0 was given" in printed
    assert "Saved text_classification_model.pt" in printed


def test_the_objective_of_the_thresholds(comments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = '{"obscene": "recall>=0.5"}'
    assert run("--model.threshold_objective", given, "--output", "one.pt", *CSV) == 0
    assert run("--config", "one.yaml", "--output", "two.pt", *CSV) == 0
    for name in ("one.pt", "two.pt"):
        loaded = TextClassifier.load_from_checkpoint(name)
        assert loaded.threshold_objective == ("macro_f1", "recall>=0.5")
    assert run("--model.threshold_objective", "precision>=0.99", "--output", "strict.pt", *CSV) == 0
    assert "cannot show precision>=0.99 for" in " ".join(capsys.readouterr().out.split())


def test_an_earlier_model_is_replaced_and_it_is_said(
    comments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--output", "mine.pt", *CSV) == 0
    assert "replaced" not in capsys.readouterr().err
    assert run("--output", "mine.pt", "--model.thresholds", "0.25", *CSV) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "flash: note: the earlier mine.pt is replaced"
    assert Predictor.load("mine.pt").thresholds.tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("output", "config"),
    [
        ("a.pt", "a.yaml"),
        ("a.ckpt", "a.yaml"),
        ("a.v1", "a.v1.yaml"),
        ("a", "a.yaml"),
        ("x/a.b.pt", "x/a.b.yaml"),
    ],
)
def test_the_options_are_saved_beside_the_model(output: str, config: str) -> None:
    assert saving.config_path(output) == Path(config)


MISTAKES: list[tuple[list[str], str]] = [
    (["from_csvv"], "unknown source 'from_csvv'; did you mean 'from_csv'?"),
    ([], 'expected "source" to be one of'),
    (["from_csv"], "the following arguments are required: --input_field"),
    ([*CSV, "--val_splt", "0.1"], "unknown option '--val_splt'; did you mean '--val_split'"),
    (["--model.min_text", "2", "from_sample"], "did you mean '--model.min_texts'"),
    ([*CSV, "--val_split", "x"], "--val_split x is not understood; expected a number"),
    (["from_sample", "--rows", "1.5"], "--rows 1.5 is not understood; expected a whole number"),
    (
        ["--trainer.max_epochs", "x", "from_sample"],
        "--trainer.max_epochs x is not understood; expected a whole number or null",
    ),
    (["--model.backbone", "lineer", *CSV], "unknown backbone 'lineer'; did you mean 'linear'"),
    (
        ["--output", "b.yaml", *CSV],
        "--output b.yaml is the name of a file of options; name the model's, such as b.pt",
    ),
    (["--output", ".", *CSV], ". cannot be written"),
    ([*CSV, "--model.thresholds", "0.5"], "--model.thresholds belongs before from_csv"),
    (["--input_field", "x", *CSV], "--input_field belongs after from_csv"),
    (
        ["--model.thresholds", "x", *CSV],
        """expected a number or null or a list or a dict such as '{"toxic": 0.3}'""",
    ),
    (
        ["--model.threshold_objective", "makro_f1", *CSV],
        "unknown objective 'makro_f1'; did you mean 'macro_f1'",
    ),
    (
        ["--trainer.devices", "2", "--trainer.accelerator", "cpu", *CSV],
        "the linear backbone works on one device, and the trainer has 2; leave out --trainer.devices",
    ),
    (
        ["--trainer.devices", "2", "--trainer.strategy", "ddp_spawn", *CSV],
        "trains in processes that hand back no calibration, thresholds or scores",
    ),
    (["--strategy", "frozen", *CSV], "unknown finetuning strategy 'frozen'"),
    ([*CSV[:-1], "nothing.csv"], "nothing.csv does not exist"),
    (
        ["--trainer.strategy", "DDPStrateg", *CSV],
        "unknown strategy 'DDPStrateg'; did you mean 'DDPStrategy'?",
    ),
    (["--trainer.strategy", "dpp", *CSV], "unknown strategy 'dpp'; did you mean 'ddp'? Known: ddp, "),
    (["--trainer.profiler", "simpl", *CSV], "it can only be one of ['simple', 'advanced', 'pytorch', 'xla']"),
    (["--trainer.accelerator", "gpux", *CSV], "unknown accelerator 'gpux'"),
    (["--trainer.devices", "x", *CSV], "--trainer.devices x is not understood"),
    (["from_cvs", *CSV[1:]], "unknown source 'from_cvs'; did you mean 'from_csv'? Known: from_sample"),
    (
        ["from_csv", "comment_text", "toxic"],
        "'comment_text' stands behind from_csv without an option's name; see ",
    ),
    (
        ["--config", "comments.csv"],
        "--config names a file that holds no options; name the .yaml beside a model",
    ),
    (
        ["--model", "linear", *CSV],
        "--model takes a file of options; to choose a backbone, type --model.backbone linear",
    ),
    (
        ["from_csv", "--input_field", "toxic", "--target_fields", "comment_text", *CSV[-2:]],
        "comments.csv: column 'comment_text' holds texts rather than labels (comments.csv, row 1: 'comment 0 is ",
    ),
    ([*CSV, "--val_split", "-1"], "--val_split -1 is out of range: expected a fraction between 0 and 1"),
    ([*CSV, "--test_file", "."], ". is a folder, not a file"),
    (["from_parquet", *CSV[1:]], "comments.csv cannot be read as Parquet"),
    (
        ["from_json", *CSV[1:]],
        "holds no JSON objects, it begins with 'id,comment_text,toxic,obscene'; if it is CSV, use",
    ),
    (["from_csv", "--input_field", "comment", *CSV[3:]], "did you mean 'comment_text'"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=[sentence for _, sentence in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(
    comments: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(["text_classification", *words]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert errors[0].startswith("flash: error: ")
    assert sentence in errors[0]
    assert list(Path().iterdir()) == [comments]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_accelerator_that_is_not_there(comments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["text_classification", "--trainer.accelerator", "cuda", *CSV]) == 2
    error = capsys.readouterr().err
    assert error.startswith("flash: error: `CUDAAccelerator` can not run on your system")
    assert error.count("\n") == 1


LOGGERS = [
    ("WandbLogger", "wandb", ["--trainer.logger.offline", "true"], "wandb/offline-run-*/*.wandb"),
    ("TensorBoardLogger", "tensorboard", [], "lightning_logs/version_0/events.out.tfevents*"),
    ("MLFlowLogger", "mlflow", ["--trainer.logger.tracking_uri", "sqlite:///runs.db"], "runs.db"),
]


@pytest.mark.parametrize(("name", "package", "words", "pattern"), LOGGERS, ids=[name for name, *_ in LOGGERS])
def test_a_logger_of_another_package(
    comments: Path, name: str, package: str, words: list[str], pattern: str
) -> None:
    """In a process of its own, as these packages start threads and warn of themselves."""
    pytest.importorskip(package, reason=f"the package {package} is not installed")
    command_line = ["text_classification", "--trainer.logger", name, *words, *CSV]
    done = subprocess.run(
        [sys.executable, "-m", "flash", *command_line],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    [written] = Path().glob(pattern)
    content = written.read_bytes()
    for parameter in (b"data/train_rows", b"model/backbone", b"val_macro_f1"):
        assert parameter in content


def test_mlflow_that_does_not_write_to_folders(
    comments: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, **options: object) -> None:
        raise ValueError("The filesystem tracking backend (e.g., './mlruns') is in maintenance mode")

    monkeypatch.setattr("lightning.pytorch.loggers.MLFlowLogger.__init__", refuse)
    assert main(["text_classification", "--trainer.logger", "MLFlowLogger", *CSV]) == 2
    assert "type --trainer.logger.tracking_uri sqlite:///mlflow.db after" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_ends_a_fit_with_its_code_one_sentence_and_no_half_written_file(
    number: signal.Signals,
    code: int,
    word: str,
    tmp_path: Path,
    start_forked: Callable[..., Forked],
) -> None:
    words = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--model.tolerance", "1e-9"]
    words += ["--trainer.enable_progress_bar", "true", "--model.max_passes", "1000000"]
    running = start_forked("text_classification", *words, "from_sample", "--rows", "2000", folder=tmp_path)
    while "train_loss" not in running.written("stdout") and running.process.is_alive():
        time.sleep(0.05)
    assert running.process.pid is not None
    os.kill(running.process.pid, number)
    done = running.wait()
    assert done.returncode == code, done.stderr
    others = ("Received SIGTERM", "Compiling the linear backbone")
    lines = [line for line in done.stderr.splitlines() if line and not any(each in line for each in others)]
    assert lines == [f"{word}; no half-written file is left behind"]
    assert list(tmp_path.iterdir()) == []


def test_the_first_line_comes_before_anything_heavy_is_imported() -> None:
    program = """
import sys
from flash.__main__ import main
heavy = {"torch", "lightning", "jsonargparse", "numpy", "pyarrow"}
class Recorded:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        self.stream.write(f"{sorted(heavy & set(sys.modules))} {text}")
    def __getattr__(self, name):
        return getattr(self.stream, name)
sys.stderr = Recorded(sys.stderr)
sys.exit(main(["text_classification", "from_nowhere"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    first, mistake = done.stderr.splitlines()
    assert first == f"[] {LOADING}"
    assert "'torch'" in mistake
    assert "unknown source 'from_nowhere'" in mistake


@pytest.mark.parametrize("launched", [pytest.param("torchrun", marks=pytest.mark.matrix), "as torchrun does"])
def test_under_torchrun_one_process_trains_the_linear_backbone_and_says_so(
    comments: Path, forked_ranks: Callable[..., "list[subprocess.CompletedProcess[str]]"], launched: str
) -> None:
    words = ["text_classification", *CSV]
    if launched == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "flash"]
        ranks = [subprocess.run([*command, *words], capture_output=True, text=True)]
    else:
        ranks = forked_ranks(*words, folder=Path.cwd())
    assert [done.returncode for done in ranks] == [0] * len(ranks), ranks
    out, errors = ("".join(getattr(done, name) for done in ranks) for name in ("stdout", "stderr"))
    assert out.count("Validation: 20 rows") == out.count("Saved text_classification") == 1
    assert (
        errors.count("flash: ") == errors.count(LOADING) == (launched == "torchrun")
    )  # others have loaded it
    assert list(Predictor.load("text_classification_model.pt").labels) == ["toxic", "obscene"]


@pytest.mark.parametrize("launched", [pytest.param("torchrun", marks=pytest.mark.matrix), "ddp"])
def test_an_encoder_trains_in_two_processes_and_is_saved_once(
    comments: Path, encoder: Path, launched: str
) -> None:
    words = ["text_classification", "--model.backbone", str(encoder), "--trainer.max_epochs", "1"]
    words += ["--trainer.accelerator", "cpu", "--model.max_length", "16", "--output", "mine.pt"]
    command = [sys.executable, "-m"]
    if launched == "torchrun":
        command += ["torch.distributed.run", "--nproc_per_node", "2", "-m"]
    else:
        words += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    words += ["--trainer.logger", "CSVLogger", *CSV]
    done = subprocess.run([*command, "flash", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Validation: 20 rows") == done.stdout.count("Saved mine.pt") == 1
    assert done.stdout.count("train:         180 texts") == 1
    assert "trainer/num_devices: 2" in Path("lightning_logs/version_0/hparams.yaml").read_text()
    assert sorted(path.name for path in Path().iterdir()) == [
        "comments.csv",
        "lightning_logs",
        "mine.pt",
        "mine.yaml",
    ]
    assert list(Predictor.load("mine.pt").labels) == ["toxic", "obscene"]


def test_gathered_lists() -> None:
    gather = options._gather_lists
    assert gather(["--target_fields", "a", "b c", "--val_split", "1"]) == [
        "--target_fields",
        '["a", "b c"]',
        "--val_split",
        "1",
    ]
    assert gather(["--target_fields", "a"]) == ["--target_fields", "a"]
    assert gather(["--labels"]) == ["--labels"]


# ---- targets that say that nothing is known


@pytest.fixture
def partly_known(comments: Path) -> Path:
    """The comments, some of them not scored, as files of the Jigsaw challenge have it, and some for one label only."""
    with comments.open(newline="") as file:
        header, *rows = csv.reader(file)
    with comments.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, row in enumerate(rows):
            unknown = ["-1", "-1"] if number % 10 == 0 else [row[2], ""] if number % 10 == 5 else row[2:]
            writer.writerow([*row[:2], *unknown])
    return comments


def test_unknown_targets_are_refused_in_the_words_of_the_command(
    partly_known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*CSV) == 2
    assert capsys.readouterr().err == (
        "flash: error: comments.csv: 60 targets say neither 0 nor 1: '-1' in 40 cells (the first comments.csv, row 1, "
        "column 'toxic'), a blank in 20 cells (the first row 6, column 'obscene'); such values often mean \"not known\": "
        "type --unknown_targets mask if it is not known there whether the label applies, or --unknown_targets negative if "
        "it does not (rows are counted from 1, the header not)\n"
    )
    assert run(*CSV, "--unknown_values", "-1") == 2
    assert capsys.readouterr().err == (
        "flash: error: --unknown_values -1 says which targets are not known, and not what to make of them; type "
        "--unknown_targets mask to leave them out, or --unknown_targets negative to take them as 0\n"
    )


@pytest.mark.filterwarnings("default:.*no target that is known:UserWarning")
@pytest.mark.parametrize("values", [[], ["--unknown_values", "-1", ""]])
def test_unknown_targets_are_masked_and_the_saved_options_make_the_same_model(
    partly_known: Path, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--output", "first.pt", *CSV, "--unknown_targets", "mask", *values) == 0
    captured = capsys.readouterr()
    assert "comments.csv: 20 of 200 rows have no target that is known, and are left out" in captured.err
    assert "20 of" not in captured.out.splitlines()[0]
    assert "targets are not known, in" in captured.out
    given = " --unknown_values -1 ''" if values else ""
    assert f"--unknown_targets mask{given}\n" in captured.out  # what to type to measure
    assert main(["text_classification", "--config", "first.yaml", "--output", "second.pt"]) == 0
    again = capsys.readouterr().out
    assert again.replace("second", "first") == captured.out
    first, second = (Predictor.load(path) for path in ("first.pt", "second.pt"))
    texts = ["comment 1 is rude and clean", "comment 2 is kind and dirty"]
    assert (first.probabilities(texts) == second.probabilities(texts)).all()
    assert first.probabilities(texts)[0, 0] > 0.5


def test_unknown_targets_can_be_taken_as_negative(
    partly_known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*CSV, "--unknown_targets", "negative") == 0
    out = capsys.readouterr().out
    assert "180 texts" in out  # of 200, as none is left out
    assert "known" not in out.partition("Saved")[0]


def test_workers_are_not_needed(
    comments: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*CSV, "--num_workers", "2") == 0
    assert (
        "--num_workers 2 changes nothing: batches are slices of arrays"
        in capsys.readouterr().err + caplog.text
    )
