"""The help of `flash text_classification` and of its sources.

What an option of the model or of the data does is said once, in the docstrings of the library, and read from there by
`signatures`. Only the options of the command itself, and those of Lightning's trainer, are described here.
"""

import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from flash.cli.signatures import Option, read_options, read_summary

WIDTH = 80
PROGRAM = "flash text_classification"
USAGE = f"{PROGRAM} [model and trainer] SOURCE [data]"

GENERATED = ("from_sample", "from_toxic")
"""Sources that are functions of `cli.training`."""
READ = ("from_csv", "from_json", "from_fasttext", "from_parquet", "from_labelstudio", "from_hf_datasets")
"""Sources that are methods of `TextClassificationData`."""
SOURCES = (*GENERATED, *READ)

TASK = "text/classification"
NO_OPTIONS = ("num_classes", "labels", "multi_label", "metrics")
"""Arguments of `TextClassifier` that the data determine, or that no command line can hold."""
OF_EVERY_MODEL = ("backbone", "thresholds", "threshold_objective", "pos_weight")


class Section(NamedTuple):
    """Options under a title, and remarks after them."""

    title: str
    options: Sequence[Option]
    remarks: str = ""


EXAMPLES = f"""Train a classifier on one source of texts, print how good it is per label, and
save it.

  {PROGRAM} from_sample
  {PROGRAM} from_csv --input_field comment_text \\
      --target_fields toxic obscene --train_file train.csv --val_split 0.1
  {PROGRAM} --model.backbone FOLDER --strategy lora from_csv ...
  {PROGRAM} --output model.pt --model.folds 0 from_csv --help

Options of the model and the trainer come before the source, those of the data
after it; brackets at the end of a line hold a default. The sources:
"""

STRATEGIES = r"""
--strategy, which layers of an encoder train (the linear backbone has none):
  no_freeze                               all (the default)
  freeze                                  the head alone; the encoder runs once
  '["freeze_unfreeze", 1]'                the head; all from epoch 1 on
  '["unfreeze_milestones", [[1, 3], 2]]'  the head; from epoch 1 on the last 2
                                          layers too; from epoch 3 on all
  lora                                    the head, and small matrices beside
                                          all layers; '["lora", 4]': of rank 4
  '["lora", {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": "all-linear"}]'
                                          or other numbers; or targets a list
                                          of names of layers
"""

MODEL_FIRST = """
Options of the model, such as an encoder's folder, and of the trainer stand
before {source}; see {program} --help.""".replace("{program}", PROGRAM)

VAL_SPLIT = "; 0 for none; by default 0.1 unless validation rows are given"
"""What `val_split` does on the command line alone."""

COMMAND = Section(
    "options",
    (
        Option("help", "", "show this text; after a source, its options"),
        Option("config", "FILE", "read options from a YAML file, as --print_config prints them"),
        Option("print_config", "", "print all options with their values, and exit"),
        Option(
            "output",
            "FILE",
            "file to save the model in; replaced if it exists",
            "text_classification_model.pt",
        ),
        Option(
            "half", "BOOL", "save an encoder's weights in 16 bits: half the size, but not resumable", False
        ),
        Option("strategy", "WHICH", "finetuning strategy: see the end", "no_freeze"),
        Option("ckpt_path", "FILE", "checkpoint of an interrupted training to resume from"),
    ),
)

TRAINER = Section(
    "the trainer (takes all of Lightning's arguments, as --trainer.NAME)",
    (
        Option("trainer.accelerator", "WHICH", "cpu, gpu or auto", "auto"),
        Option("trainer.devices", "N", "number; the linear backbone uses one", "auto"),
        Option("trainer.precision", "WHICH", "32, bf16-mixed, 16-mixed, or auto"),
        Option("trainer.max_epochs", "N", "maximum; the linear backbone needs one", 3),
        Option("trainer.logger", "CLASS", "of the scores, or true: see below", False),
        Option("trainer.callbacks", "CLASS", "such as EarlyStopping: see below"),
        Option("trainer.enable_progress_bar", "BOOL", "by default only on a terminal"),
        Option("trainer.default_root_dir", "FOLDER", "of logs; by default this one"),
    ),
    "  Loggers: CSVLogger, TensorBoardLogger, WandbLogger, MLFlowLogger and others of\n"
    "  Lightning's; callbacks: EarlyStopping, ModelCheckpoint, Timer and others. The\n"
    "  options of a class follow its name, and + adds one more:\n"
    "    --trainer.logger CSVLogger --trainer.logger.save_dir logs\n"
    "    --trainer.logger WandbLogger --trainer.logger.offline true\n"
    "    --trainer.callbacks EarlyStopping --trainer.callbacks.monitor val_loss\n"
    "    --trainer.callbacks+ ModelCheckpoint --trainer.callbacks.save_last true\n"
    "  With true as the logger, scores go to lightning_logs as CSV.",
)


@cache
def model_options() -> tuple[Option, ...]:
    """The options of the classifier and of every backbone."""
    return tuple(option for section in _model_sections() for option in section.options)


@cache
def data_options(source: str) -> tuple[Option, ...]:
    """The options of a source, in the order of its signature."""
    if source in GENERATED:
        options = read_options("cli/training.py", source)
    else:
        own, shared = (
            read_options(f"{TASK}/data.py", f"TextClassificationData.{name}")
            for name in (source, "from_sources")
        )
        options = (
            *own,
            *(option for option in shared if not option.required and option.name != "target_fields"),
        )
    return tuple(
        option._replace(words=option.words + VAL_SPLIT) if option.name == "val_split" else option
        for option in options
    )


@cache
def sections() -> tuple[Section, ...]:
    """The options before a source."""
    return (COMMAND, *_model_sections(), TRAINER)


def asked_source(words: Sequence[str]) -> str | None:
    """The source whose help is requested, "" for the command's own help, None if no help is requested."""
    place = next((index for index, word in enumerate(words) if word in ("-h", "--help")), None)
    if place is None:
        return None
    return next((word for word in words[:place] if word in SOURCES), "")


def help_text(source: str = "") -> str:
    """The help of the command, or of one of its sources."""
    if source:
        data = _lines(Section("the data", data_options(source), MODEL_FIRST.format(source=source)))
        return "\n".join([f"usage: {USAGE.replace('SOURCE', source)}\n", _summary(source), *data])
    parts = [f"usage: {USAGE}\n", EXAMPLES]
    parts += _table([(name, _summary(name).rstrip(".")) for name in SOURCES])
    for section in sections():
        parts += _lines(section)
    return "\n".join([*parts, STRATEGIES.rstrip()])


def described(option: Option) -> str:
    """The help text of an option, with its default in brackets."""
    if option.required:
        return f"{option.words} (required)"
    if option.default is None:
        return option.words
    default = str(option.default).lower() if isinstance(option.default, bool) else option.default
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{option.words} [{shown}]"


@cache
def _model_sections() -> tuple[Section, ...]:
    encoder, linear = f"{TASK}/backbones/encoder", f"{TASK}/backbones/linear"
    options = (
        *read_options(f"{TASK}/model.py", "TextClassifier"),
        *read_options(f"{encoder}/model.py", "EncoderConfig"),
        *read_options(f"{encoder}/module.py", "TrainingOptions"),
    )
    other = (*NO_OPTIONS, *OF_EVERY_MODEL)
    of_linear = read_options(f"{linear}/model.py", "LinearConfig")
    return (
        _model_section("the classifier", [option for option in options if option.name in OF_EVERY_MODEL]),
        _model_section("the linear backbone", [option for option in of_linear if option.name not in other]),
        _model_section("an encoder", [option for option in options if option.name not in other]),
    )


def _model_section(title: str, options: Sequence[Option]) -> Section:
    return Section(title, [option._replace(name=f"model.{option.name}") for option in options])


def _summary(source: str) -> str:
    if source in GENERATED:
        return read_summary("cli/training.py", source)
    return read_summary(f"{TASK}/data.py", f"TextClassificationData.{source}")


def _lines(section: Section) -> Iterator[str]:
    """A section's title, its options and its remarks."""
    yield f"\n{section.title}:"
    yield from _table(
        [(f"--{option.name} {option.value}".rstrip(), described(option)) for option in section.options]
    )
    if section.remarks:
        yield section.remarks


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Two columns; the second is wrapped."""
    column = max(len(left) for left, _ in rows) + 4
    for left, words in rows:
        first, *others = textwrap.wrap(words, WIDTH - column, break_on_hyphens=False)
        yield f"  {left}".ljust(column) + first
        yield from (" " * column + line for line in others)
