"""`flash text_classification`: train on one source, print the table, save the model, say what to type next.

Options of the model and the trainer come before the source, those of the data after it, as in Lightning Flash.
"""

import argparse
import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from flash.core.data.utils import download_data
from flash.core.errors import FlashError, unknown_name
from flash.core.trainer import Trainer
from flash.text.classification.backbones.linear import LinearConfig
from flash.text.classification.data import TextClassificationData
from flash.text.classification.model import TextClassifier
from flash.text.classification.sample import LABELS, sample_table

TOXIC_URL = "https://pl-flash-data.s3.amazonaws.com/jigsaw_toxic_comments.zip"
TOXIC_FILE = "data/jigsaw_toxic_comments/train.csv"
HELD_OUT = 0.1  # of the training rows, where the user named no validation rows

SHOWN_TRAINER_OPTIONS = ("max_epochs", "fast_dev_run", "accelerator", "devices", "logger", "default_root_dir")
QUIET_TRAINER = {
    "max_epochs": 3,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
"""Defaults that differ from Lightning's: one command leaves one model behind, and no folder of logs."""

FROM_DATA = ("num_classes", "labels", "multi_label", "loss_fn", "metrics")
LIST_OPTIONS = ("--target_fields", "--labels", "--train_file", "--val_file", "--test_file", "--predict_file")

UNPARSED = re.compile(r'Parser key "(?P<key>[^"]+)".*(?:Given|Got) value: (?P<value>.*)$')
KINDS = {
    "NoneType": "null",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
}

DESCRIPTION = """Train a classifier on one source of texts, print how good it is per label, and save it.

  flash text_classification from_sample
  flash text_classification from_csv --input_field comment_text --target_fields toxic obscene \\
      --train_file train.csv --val_split 0.1
  flash text_classification --output model.pt --model.thresholds 0.5 from_json --help

Options of the model and the trainer come before the source, those of the data after it."""


def from_sample(
    rows: int = 3000, val_split: float | int = HELD_OUT, batch_size: int = 32, seed: int = 0
) -> TextClassificationData:
    """Synthetic comments that this library generates from its own templates; needs no file and no network.

    Args:
        rows: how many comments to generate.
        val_split: the fraction, or the number, of rows held out to choose thresholds and measure.
        batch_size: rows a batch.
        seed: of the generator and the split.
    """
    table = sample_table(rows, seed)
    targets = list(zip(*(table[label].to_pylist() for label in LABELS), strict=True))
    return TextClassificationData.from_lists(
        train_data=table["comment_text"].to_pylist(),
        train_targets=[list(map(float, row)) for row in targets],
        labels=list(LABELS),
        multi_label=True,
        val_split=val_split,
        batch_size=batch_size,
        seed=seed,
    )


def from_toxic(
    val_split: float | int = HELD_OUT, batch_size: int = 32, seed: int = 0
) -> TextClassificationData:
    """The Jigsaw toxic comments, downloaded unless data/jigsaw_toxic_comments/train.csv is there.

    Args:
        val_split: the fraction, or the number, of rows held out to choose thresholds and measure.
        batch_size: rows a batch.
        seed: of the split.
    """
    if not Path(TOXIC_FILE).exists():
        try:
            download_data(TOXIC_URL, "data/")
        except FlashError as error:
            raise FlashError(
                f"the toxic comments could not be downloaded ({error}); put the challenge's train.csv at "
                f"{TOXIC_FILE}, or try: flash text_classification from_sample, which needs no network"
            ) from error
    return TextClassificationData.from_csv(
        "comment_text",
        list(LABELS),
        train_file=TOXIC_FILE,
        val_split=val_split,
        batch_size=batch_size,
        seed=seed,
    )


SOURCES: dict[str, Any] = {
    "from_sample": from_sample,
    "from_toxic": from_toxic,
    "from_csv": TextClassificationData.from_csv,
    "from_json": TextClassificationData.from_json,
    "from_parquet": TextClassificationData.from_parquet,
    "from_labelstudio": TextClassificationData.from_labelstudio,
    "from_hf_datasets": TextClassificationData.from_hf_datasets,
}
"""What makes the data of each subcommand."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Examples as they are written, each option with its type and default, and the trainer's usual ones only."""

    def add_argument(self, action: argparse.Action) -> None:
        """Leave out Lightning's forty further options, which are taken all the same."""
        group, _, name = action.dest.partition(".")
        if action.dest not in ("model", "trainer") and (group != "trainer" or name in SHOWN_TRAINER_OPTIONS):
            super().add_argument(action)


def build_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The parser of the command, its model and trainer, and those of its sources by name."""
    parser = ArgumentParser(
        prog="flash text_classification",
        usage="flash text_classification [options of model and trainer] SOURCE [options of the data]",
        description=DESCRIPTION,
        formatter_class=HelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of options, such as --print_config prints"
    )
    parser.add_argument("--output", default="text_classification_model.pt", help="where to save the model")
    parser.add_argument(
        "--strategy", default="no_freeze", type=str, help="which layers train: no_freeze or freeze"
    )
    parser.add_class_arguments(TextClassifier, "model", skip=set(FROM_DATA))
    parser.add_class_arguments(LinearConfig, "model", skip={"exclusive"}, as_group=False)
    parser.add_class_arguments(Trainer, "trainer")
    parser.set_defaults({f"trainer.{name}": value for name, value in QUIET_TRAINER.items()})
    for action in parser._actions:
        group, _, name = action.dest.partition(".")
        action.metavar = (name or group).upper() if action.metavar is None else action.metavar
    sources = parser.add_subcommands(dest="source", metavar="SOURCE")
    subparsers = {}
    for name, source in SOURCES.items():
        summary = source.__doc__.splitlines()[0]
        subparser = ArgumentParser(
            usage=f"flash text_classification [options of model and trainer] {name} [options]",
            description=summary,
            formatter_class=DefaultHelpFormatter,
            exit_on_error=False,
        )
        if hasattr(TextClassificationData, name):
            subparser.add_method_arguments(TextClassificationData, name)
        else:
            subparser.add_function_arguments(source)
        sources.add_subcommand(name, subparser, help=summary)
        subparsers[name] = subparser
    return parser, subparsers


def run(argv: list[str]) -> int:
    """Train, print the table, save; returns the exit code."""
    parser, subparsers = build_parser()
    _check_names(parser, subparsers, argv)
    options = _parse(parser, argv)
    _quieten_lightning()
    datamodule = load_data(options)
    if options.source == "from_sample":
        print("Synthetic comments, generated by this library from its own templates:")
    print(datamodule)
    model = TextClassifier(
        labels=datamodule.labels, multi_label=bool(datamodule.multi_label), **options.model
    )
    trainer = Trainer(**options.trainer)
    try:
        trainer.finetune(model, datamodule=datamodule, strategy=options.strategy)
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
            raise KeyboardInterrupt from None
        raise
    if datamodule.test_dataset is not None:
        trainer.test(model, datamodule=datamodule)
    trainer.save_checkpoint(options.output)
    config = Path(options.output).with_suffix(".yaml")
    parser.save(options, str(config), overwrite=True)
    print(_closing_words(options, config))
    return 0


def _parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    """The options, or one sentence about what is wrong with them."""
    try:
        options: Namespace = parser.parse_args(_gather_lists(argv))
        return options
    except argparse.ArgumentError as error:
        raise FlashError(
            f"{_sentence(str(error.message or error))}; see flash text_classification --help"
        ) from error


def _check_names(parser: ArgumentParser, subparsers: dict[str, ArgumentParser], argv: list[str]) -> None:
    """Answer a misspelt option with the closest one, which the parser does not."""
    known = set(parser._option_string_actions)
    for word in argv:
        if word in subparsers:
            known = set(subparsers[word]._option_string_actions)
        name = word.partition("=")[0]
        # A dotted rest, as in --trainer.logger.save_dir, belongs to an object that the parser builds.
        nested = any("." in option and name.startswith(option + ".") for option in known)
        if name.startswith("--") and name not in known and not nested:
            shown = sorted(option for option in known if option.startswith("--") and not option.endswith("+"))
            raise FlashError(unknown_name("option", name, shown))


def _sentence(message: str) -> str:
    """The parser's words for a mistake, in the words of who made it."""
    line = " ".join(part.strip() for part in message.splitlines()).rstrip(".")
    found = UNPARSED.search(line)
    if found is None:
        return re.sub(r"\bfrom_\w+\.(?=\w)", "--", line)
    kinds = [
        kind.rpartition(".")[2]
        for kind in re.findall(r"<class '([\w.]+)'>", line.partition("Given value")[0])
    ]
    wanted = " or ".join(dict.fromkeys(KINDS.get(kind, kind) for kind in kinds)) or "something else"
    return f"--{found['key']} {found['value']} is not understood; expected {wanted}"


def _quieten_lightning() -> None:
    """Leave out what Lightning says of itself; what the model and the data have to say stays."""
    noise = (
        "\nDetected KeyboardInterrupt",
        "GPU available",
        "TPU available",
        "💡 Tip",
        "`Trainer.fit` stopped",
    )
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not record.getMessage().startswith(noise)
    )
    warnings.filterwarnings("ignore", module="lightning")


def load_data(options: Namespace) -> TextClassificationData:
    """The rows of the source that was named, a tenth of them held out unless the user chose otherwise."""
    keywords = dict(options[options.source])
    named = [name for name in keywords if name.startswith("val_") and keywords[name] is not None]
    if not named and "val_split" in keywords:
        keywords["val_split"] = HELD_OUT
    datamodule: TextClassificationData = SOURCES[options.source](**keywords)
    return datamodule


def _gather_lists(argv: list[str]) -> list[str]:
    """`--target_fields a b` as the JSON list that the parser takes; a single value stays as it is."""
    gathered: list[str] = []
    position = 0
    while position < len(argv):
        gathered.append(argv[position])
        position += 1
        if gathered[-1] in LIST_OPTIONS:
            end = next((i for i in range(position, len(argv)) if argv[i].startswith("-")), len(argv))
            values, position = argv[position:end], end
            gathered += [json.dumps(values)] if len(values) > 1 else values
    return gathered


def _closing_words(options: Namespace, config: Path) -> str:
    """What was saved, and the commands to type next."""
    model = options.output
    synthetic = "The comments are synthetic: the numbers above say nothing about real ones.\n"
    return f"""
{synthetic if options.source == "from_sample" else ""}Saved {model}, and the options that made it in {config}. Next:

  printf 'text\\n"You are wonderful"\\n' | flash predict {model} --input -
  flash predict {model} --input comments.csv --input_field comment_text --output predictions.csv
  flash evaluate {model} test.csv"""
