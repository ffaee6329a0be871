"""The options of `flash text_classification`: its parser, its help, and what is wrong with a command line.

Built on jsonargparse from the signatures of the library, so that an option is documented once, where it is defined.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from flash.core.errors import FlashError, unknown_name
from flash.core.trainer import Trainer
from flash.text.classification.backbones.linear import LinearConfig
from flash.text.classification.data import TextClassificationData
from flash.text.classification.model import TextClassifier

Sources = Mapping[str, Callable[..., TextClassificationData]]

PROGRAM = "flash text_classification"
EXAMPLES = """Train a classifier on one source of texts, print how good it is per label, and save it.

  flash text_classification from_sample
  flash text_classification from_csv --input_field comment_text --target_fields toxic obscene \\
      --train_file train.csv --val_split 0.1
  flash text_classification --output model.pt --model.thresholds 0.5 from_json --help

Options of the model and the trainer come before the source, those of the data after it. The sources:
"""

QUIET_TRAINER = {
    "max_epochs": 3,
    "logger": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}
"""Defaults that differ from Lightning's: one command leaves one model behind, and no folder of logs."""

FROM_DATA = ("num_classes", "labels", "multi_label", "loss_fn", "metrics")
"""Arguments of the model that the data decides, or that no command line can hold."""

FOR_ENCODERS = ("model.max_length", "model.optimizer", "model.lr_scheduler", "model.learning_rate")
"""Taken, as Flash's scripts have them, and kept out of the help while there is no encoder to use them."""

VALUES = {
    "input_field": "COLUMN",
    "target_fields": "COLUMN ...",
    "train_file": "FILE ...",
    "val_file": "FILE ...",
    "test_file": "FILE ...",
    "predict_file": "FILE ...",
    "labels": "NAME ...",
    "val_split": "N",
    "num_classes": "N",
    "num_workers": "N",
    "batch_size": "N",
    "rows": "N",
    "seed": "N",
    "delimiter": "D",
    "label_delimiter": "D",
    "multi_label": "BOOL",
    "quoting": "BOOL",
    "unknown_labels": "WHAT",
    "enable_progress_bar": "BOOL",
    "logger": "BOOL",
    "default_root_dir": "FOLDER",
}
"""What stands for an option's value in the help, where the option's own name says too little or too much."""

LIST_OPTIONS = ("--target_fields", "--labels", "--train_file", "--val_file", "--test_file", "--predict_file")

HELP = {
    "model.backbone": "what turns texts into scores: linear (n-grams, nothing to download)",
    "model.thresholds": "probability from which on a label applies: one number, a list, "
    "'{\"toxic\": 0.3}', or auto: chosen by cross-validation on the training rows",
    "model.threshold_objective": "what auto chooses thresholds for: macro_f1, micro_f1, macro_f2 (or another "
    "beta), 'precision>=0.9' or 'recall>=0.9'; one for all labels, a list, or "
    '\'{"toxic": "recall>=0.9"}\'',
    "trainer.max_epochs": "at most so many epochs; the linear backbone ends after one",
    "trainer.accelerator": "cpu, gpu or auto",
    "trainer.devices": "how many devices; the linear backbone works on one",
    "trainer.logger": "true writes the scores to lightning_logs",
    "trainer.enable_progress_bar": "true or false; unless given, only on a terminal",
    "trainer.default_root_dir": "the folder of logs; unless given, this one",
    "print_config": "print all options and their values, and end",
    "target_fields": "the 0/1 columns, or the one of names",
    "train_file": "files, or a glob",
    "val_file": "the same, for validation",
    "test_file": "the same, for a test after training",
    "predict_file": "the same; only the texts are read",
    "delimiter": "between cells; unless given, a comma or a tab by the ending and the header",
    "label_delimiter": "between the names in one cell; a comma unless given",
    "labels": "the names in order; unless given, those of the training rows",
    "num_classes": "how many, where class indices have no names",
    "multi_label": "whether any number may apply; unless given, the target's structure decides",
    "unknown_labels": "of labels that train lacks: error, or ignore them with a warning",
    "num_workers": "processes that prepare batches; 0 is right for the linear backbone",
    "val_split": "the fraction (such as 0.1) or the number of training rows to hold out; 0 for none; "
    "unless given, a tenth where there are no other validation rows",
}
"""Words for the command line, where those of the signature are for Python, or Lightning's."""

KINDS = {
    "NoneType": "null",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "Sequence": "a list",
    "Mapping": "a dict such as '{\"toxic\": 0.3}'",
}
UNPARSED = re.compile(r'Parser key "(?P<key>[^"]+)".*(?:Given|Got) value: (?P<value>.*)$')


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Examples as they are written, and each option with its words and its default, without its Python type."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{**options, "max_help_position": 28})  # type: ignore[no-untyped-call]

    def add_argument(self, action: argparse.Action) -> None:
        """Leave out Lightning's forty further options, which are taken all the same."""
        group, _, name = action.dest.partition(".")
        shown = action.dest in HELP if group == "trainer" else action.dest not in FOR_ENCODERS
        if shown and (name or group not in ("model", "trainer", "source")):
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(name for name in action.option_strings if not name.endswith("+"))
        if action.nargs == 0 or not names:
            return names
        name = action.dest.rpartition(".")[2]
        return names if action.dest == "print_config" else f"{names} {VALUES.get(name, name.upper())}"

    def _get_help_string(self, action: argparse.Action) -> str:
        words = (action.help or "").replace("%", "%%").rstrip(".")
        if action.required:
            return f"{words} (required)"
        default = (
            json.dumps(action.default, default=str) if action.default is not argparse.SUPPRESS else "null"
        )
        return (
            words if default in ("null", '"==SUPPRESS=="') else f"{words} (default: {default.strip(chr(34))})"
        )


def build_parser(sources: Sources) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The parser of the command, its model and trainer, and those of its sources by name."""
    set_parsing_settings(
        docstring_parse_attribute_docstrings=True
    )  # LinearConfig's fields explain themselves
    summaries = {name: (source.__doc__ or "").splitlines()[0] for name, source in sources.items()}
    width = max(map(len, summaries))
    parser = ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options of model and trainer] SOURCE [options of the data]",
        description=EXAMPLES + "".join(f"\n  {name:{width}}  {line}" for name, line in summaries.items()),
        formatter_class=HelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of options, as --print_config prints them"
    )
    parser.add_argument("--output", default="text_classification_model.pt", help="where to save the model")
    parser.add_argument(
        "--strategy", default="no_freeze", type=str, help="which layers train: no_freeze or freeze"
    )
    parser.add_class_arguments(TextClassifier, "model", skip=set(FROM_DATA))
    parser.add_class_arguments(LinearConfig, "model", as_group=False)
    parser.add_class_arguments(Trainer, "trainer")
    groups: Any = parser.groups
    model, loose = groups["model"], parser._optionals
    model.title = "the classifier"
    model._group_actions += [action for action in loose._group_actions if action.dest.startswith("model.")]
    loose._group_actions = [action for action in loose._group_actions if action not in model._group_actions]
    groups[
        "trainer"
    ].title = "the trainer (all of Lightning's arguments are taken, as in --trainer.precision)"
    parser.set_defaults({f"trainer.{name}": value for name, value in QUIET_TRAINER.items()})
    _reword(parser)
    subcommands = parser.add_subcommands(dest="source", metavar="SOURCE")
    subparsers = {}
    for name, summary in summaries.items():
        subparsers[name] = _source_parser(name, summary, sources[name])
        subcommands.add_subcommand(name, subparsers[name], help=summary)
    return parser, subparsers


def _source_parser(name: str, summary: str, source: Callable[..., Any]) -> ArgumentParser:
    """The parser of one source: the keywords of the function that makes its data."""
    parser = ArgumentParser(
        usage=f"{PROGRAM} [options of model and trainer] {name} [options]",
        description=summary,
        formatter_class=HelpFormatter,
        exit_on_error=False,
    )
    if hasattr(TextClassificationData, name):
        parser.add_method_arguments(TextClassificationData, name)
    else:
        parser.add_function_arguments(source)
    groups: Any = parser.groups
    for group in groups.values():
        group.title = "the data"
    _reword(parser)
    return parser


def _reword(parser: ArgumentParser) -> None:
    for action in parser._actions:
        action.help = HELP.get(action.dest, action.help)


def parse(sources: Sources, argv: list[str]) -> tuple[ArgumentParser, Namespace]:
    """The parser and the options of a command line.

    Raises:
        FlashError: one sentence about what is wrong with it.
    """
    parser, subparsers = build_parser(sources)
    _check_names(parser, subparsers, argv)
    try:
        return parser, parser.parse_args(_gather_lists(argv))
    except argparse.ArgumentError as error:
        source = next((f" {word}" for word in argv if word in subparsers), "")
        raise FlashError(f"{_sentence(str(error.message or error))}; see {PROGRAM}{source} --help") from error


def _check_names(parser: ArgumentParser, subparsers: dict[str, ArgumentParser], argv: list[str]) -> None:
    """Answer a misspelt or misplaced option, which the parser does not."""
    place = next((index for index, word in enumerate(argv) if word in subparsers), len(argv))
    source = subparsers[argv[place]] if place < len(argv) else None
    before = set(parser._option_string_actions)
    after = set(source._option_string_actions) if source is not None else set()
    for index, word in enumerate(argv):
        known, other = (before, after) if index < place else (after, before)
        name = word.partition("=")[0]
        # A dotted rest, as in --trainer.logger.save_dir, belongs to an object that the parser builds.
        nested = any("." in option and name.startswith(option + ".") for option in known)
        if not name.startswith("--") or name in known or nested:
            continue
        if name in other:
            side = "after" if index < place else "before"
            raise FlashError(
                f"{name} belongs {side} {argv[place]}: {PROGRAM} [model and trainer] {argv[place]} [data]"
            )
        shown = sorted(option for option in known if option.startswith("--") and not option.endswith("+"))
        raise FlashError(unknown_name("option", name, shown))


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


def _sentence(message: str) -> str:
    """The parser's words for a mistake, in the words of who made it."""
    line = " ".join(part.strip() for part in message.splitlines()).rstrip(".")
    found = UNPARSED.search(line)
    if found is None:
        return re.sub(r"\bfrom_\w+\.(?=\w)", "--", line)
    kinds = re.findall(r"<class '(?:[\w.]+\.)?(\w+)'>", line.partition("Given value")[0])
    names = dict.fromkeys(KINDS.get(kind, kind) for kind in kinds)
    if KINDS["float"] in names:  # which says it all
        names.pop(KINDS["int"], None)
    wanted = " or ".join(names) or "something else"
    return f"--{found['key']} {found['value']} is not understood; expected {wanted}"
