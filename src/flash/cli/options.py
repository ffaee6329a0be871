"""The parser of `flash text_classification`, and clear errors for invalid command lines.

jsonargparse builds the parser from the signatures of the library; `help` prints the help.
"""

import argparse
import ast
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from inspect import signature
from itertools import takewhile
from typing import Any, Literal, Union

import lightning.pytorch as pl
from jsonargparse import ArgumentParser, Namespace

from flash.cli import components, config
from flash.cli.help import COMMAND, NO_OPTIONS, OF_EVERY_MODEL, PROGRAM, TRAINER
from flash.core.errors import FlashError, shortened, unknown_name
from flash.text.classification.arguments import RENAMED, take_earlier_names
from flash.text.classification.backbones.encoder.model import EncoderConfig
from flash.text.classification.backbones.encoder.module import TrainingOptions
from flash.text.classification.backbones.linear.model import LinearConfig
from flash.text.classification.data import TextClassificationData
from flash.text.classification.model import TextClassifier
from flash.training.flash_arguments import REPLACED
from flash.training.trainer import Trainer

Sources = Mapping[str, Callable[..., TextClassificationData]]

QUIET_TRAINER = {"trainer.enable_checkpointing": None, "trainer.num_sanity_val_steps": 0}
"""Defaults that differ from Lightning's, beside those that the help shows.

One command leaves one model behind and no folder of logs; checkpoints are written only by a callback.
"""

COMMAND_TYPES: dict[str, Any] = {"output": str, "half": bool, "strategy": Any, "ckpt_path": str | None}
"""The options of the command itself; a strategy is a name, or a list of a name and its numbers."""

GONE_SOURCES = {
    "from_imdb": f"with its files in data/imdb, type: {PROGRAM} from_csv --input_field review --target_fields sentiment "
    "--train_file data/imdb/train.csv --val_file data/imdb/valid.csv",
    "from_data_frame": f"write the frame to a file, and type: {PROGRAM} from_parquet --help",
    "from_lists": f"write the lists to a file, and type: {PROGRAM} from_csv --help",
}
"""Lightning Flash's sources that are not supported, and their replacements."""

LIST_OPTIONS = (
    *("--input_field", "--target_fields", "--labels", "--column_names"),
    *("--train_file", "--val_file", "--test_file", "--predict_file"),
)
TARGET_VALUES = "--unknown_values"
"""Its values may be anything, including -1 and the empty text."""
NUMBER = re.compile(r"-[0-9.]+")

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

UNKNOWN = re.compile(r"Group '(?P<group>\w+)' does not accept option '(?P<name>[\w.]+)'")


def build_parser(sources: Sources) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The parser of the command with model and trainer, and the parser of each source by name."""
    parser = ArgumentParser(prog=PROGRAM, parser_mode=config.register(), exit_on_error=False)
    parser.add_argument("--config", action="config")
    for option in COMMAND.options:
        if option.name in COMMAND_TYPES:
            parser.add_argument(f"--{option.name}", default=option.default, type=COMMAND_TYPES[option.name])
    parser.add_class_arguments(TextClassifier, "model", skip={*NO_OPTIONS, "loss_fn"})
    parser.add_class_arguments(LinearConfig, "model", as_group=False, skip=set(OF_EVERY_MODEL))
    for options in (EncoderConfig, TrainingOptions):
        parser.add_class_arguments(options, "model", as_group=False)
    parser.add_argument("--model.loss_fn", type=str | None)  # of a loss, its name only
    precision = signature(pl.Trainer).parameters["precision"].annotation
    parser.add_class_arguments(Trainer, "trainer", skip={"precision"})
    parser.add_argument("--trainer.precision", type=Union[Literal["auto"], precision])  # noqa: UP007
    parser.set_defaults({option.name: option.default for option in TRAINER.options} | QUIET_TRAINER)
    subcommands = parser.add_subcommands(dest="source", metavar="SOURCE")
    subparsers = {}
    for name, source in sources.items():
        subparsers[name] = ArgumentParser(parser_mode=config.register(), exit_on_error=False)
        if hasattr(TextClassificationData, name):
            subparsers[name].add_method_arguments(TextClassificationData, name)
        else:
            subparsers[name].add_function_arguments(source)
        subcommands.add_subcommand(name, subparsers[name])
    return parser, subparsers


def with_current_names(argv: list[str]) -> list[str]:
    """A command line under the names of today; a warning names the earlier ones.

    Raises:
        FlashError: an option is given by both of its names.
    """
    prefix = "--model."
    names = {word: word.partition("=")[0].removeprefix(prefix) for word in argv if word.startswith(prefix)}
    take_earlier_names(dict.fromkeys(names.values()), prefix + "{}")
    return [
        word.replace(names[word], RENAMED.get(names[word], names[word]), 1) if word in names else word
        for word in argv
    ]


def parse(sources: Sources, argv: list[str]) -> tuple[ArgumentParser, Namespace]:
    """Parse a command line; returns the parser and the options.

    Raises:
        FlashError: the command line is invalid.
    """
    parser, subparsers = build_parser(sources)
    _check_names(parser, subparsers, argv)
    try:
        return parser, parser.parse_args(_gather_lists(components.prepare(_plain_strategy(argv))))
    except argparse.ArgumentError as error:
        source = next((f" {word}" for word in argv if word in subparsers), "")
        message = str(error.message or error)
        if found := UNKNOWN.search(message):  # from an options file
            name, known = f"{found['group']}.{found['name']}", parser.get_defaults().keys()
            if found["name"] in RENAMED:
                new = f"{found['group']}.{RENAMED[found['name']]}"
                raise FlashError(f"{name} is now called {new}; rename it in the file") from error
            raise FlashError(unknown_name("option", name, sorted(known))) from error
        of_component = _of_component(message)
        sentence = of_component or _sentence(message)
        ours = of_component or sentence.startswith(("--model.", "--trainer."))
        raise FlashError(f"{sentence}; see {PROGRAM}{'' if ours else source} --help") from error


def _of_component(message: str) -> str | None:
    """The error about a logger, callback or other trainer object; None if the message is about something else."""
    if source := re.search(r"argument SOURCE: invalid choice: '([\w.]+)'", message):
        word = source[1]
        keys = (key for key in components.KINDS if word.rpartition(".")[2] in components.class_names(key))
        found = next(keys, None)
        return found and f"{word} stands where a source is expected; type --{found}+={word}"
    key = re.search(r'Parser key "([\w.]+)"', message)
    return components.mistake(key[1], message) if key and key[1] in components.KINDS else None


def _check_names(parser: ArgumentParser, subparsers: dict[str, ArgumentParser], argv: list[str]) -> None:
    """Reject misspelt and misplaced options, which the parser does not explain."""
    if gone := next((word for word in argv if word in GONE_SOURCES), None):
        raise FlashError(f"{gone} is not here; {GONE_SOURCES[gone]}")
    place = next((index for index, word in enumerate(argv) if word in subparsers), len(argv))
    if place == len(argv) and (wrong := next((word for word in argv if word.startswith("from_")), None)):
        raise FlashError(f"{unknown_name('source', wrong, subparsers)}; see {PROGRAM} --help")
    if place < len(argv):
        _refuse_bare_words(argv[place:])
    source = subparsers[argv[place]] if place < len(argv) else None
    before = {*_names(parser), "--print_config"} - {"--source"}
    after = _names(source) if source is not None else set()
    for index, word in enumerate(argv):
        known, other = (before, after) if index < place else (after, before)
        name = word.partition("=")[0].removesuffix("+")
        if not name.startswith("--") or name in known or _is_nested(name, known):
            continue
        if name in other or _is_nested(name, other):
            side = "after" if index < place else "before"
            raise FlashError(
                f"{name} belongs {side} {argv[place]}: {PROGRAM} [model and trainer] {argv[place]} [data]"
            )
        if name.removeprefix("--trainer.") in REPLACED:
            raise FlashError(
                f"{name} is no option of today's trainer; in Python's words: {REPLACED[name.removeprefix('--trainer.')]}"
            )
        raise FlashError(unknown_name("option", name, sorted(known)))


def _refuse_bare_words(argv: list[str]) -> None:
    """Reject positional values after a source; Lightning Flash's Python API accepted them."""
    bare = list(takewhile(lambda word: not word.startswith("-"), argv[1:]))
    if bare and not (argv[0] == "from_sample" or argv[0] == "from_toxic"):
        raise FlashError(
            f"{shortened(bare[0])!r} stands behind {argv[0]} without an option's name; see {PROGRAM} {argv[0]} --help "
            "for the names, such as --input_field and --train_file"
        )


def _names(parser: ArgumentParser) -> set[str]:
    """The options that a parser knows."""
    return {"--help", *(f"--{key}" for key in parser.get_defaults().keys(branches=True))}


def _is_nested(name: str, known: set[str]) -> bool:
    """Whether it is an option of a nested object, such as --trainer.logger.save_dir."""
    return any("." in option and name.startswith(option + ".") for option in known)


def _plain_strategy(argv: list[str]) -> list[str]:
    """Convert a strategy typed as a Python tuple, as messages of the library write it, to JSON."""
    words = list(argv)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        typed = value if equals and name == "--strategy" else word if words[index - 1] == "--strategy" else ""
        if typed.startswith("("):
            with suppress(ValueError, SyntaxError):
                words[index] = word.removesuffix(typed) + json.dumps(ast.literal_eval(typed))
    return words


def _gather_lists(argv: list[str]) -> list[str]:
    """Convert `--target_fields a b` to the JSON list that the parser expects; a single value stays, except a label.

    `--unknown_values -1` always becomes a list of text, so that neither `null` nor the empty text means the default.
    """
    gathered: list[str] = []
    position = 0
    while position < len(argv):
        name, equals, value = argv[position].partition("=")
        position += 1
        if name not in (*LIST_OPTIONS, TARGET_VALUES):
            gathered.append(argv[position - 1])
            continue
        values = [value] if equals else []
        while not equals and position < len(argv) and not _is_option(argv[position], name):
            values.append(argv[position])
            position += 1
        text = name == TARGET_VALUES or (name == "--labels" and values[:1] != ["null"])
        label = text and values and not values[0].startswith("[")
        listed = [_as_list(values)] if len(values) > 1 or label else list(map(_read_again, values))
        gathered += [name, *listed]
    return gathered


def _read_again(value: str) -> str:
    """Rewrite a JSON list for YAML, which does not accept the surrogate pairs that `json.dumps` writes for an emoji."""
    with suppress(ValueError):
        words = json.loads(value) if value.startswith("[") else None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return _as_list(words)
    return value


def _as_list(words: list[str]) -> str:
    """JSON that YAML reads as the same words: emojis unescaped, line separators escaped."""
    written = json.dumps(words, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", written)


def _is_option(word: str, before: str) -> bool:
    """Whether a word starts another option; after `--unknown_values` a negative number is a value."""
    return word.startswith("-") and not (before == TARGET_VALUES and NUMBER.fullmatch(word))


def _sentence(message: str) -> str:
    """Rewrite a parser error in terms of what the user typed."""
    line = " ".join(part.strip() for part in message.splitlines()).rstrip(".")
    if line.startswith("Unexpected config:"):
        return "--config names a file that holds no options; name the .yaml beside a model that training has saved"
    if 'Parser key "model"' in line and "Unable to load config" in line:
        return "--model takes a file of options; to choose a backbone, type --model.backbone linear"
    found = UNPARSED.search(line)
    if found is None:
        return re.sub(r"\bfrom_\w+\.(?=\w)", "--", line)
    expected = line.partition("Given value")[0]
    kinds = re.findall(r"<class '(?:[\w.]+\.)?(\w+)'>", expected)
    names = dict.fromkeys(KINDS.get(kind, kind) for kind in kinds)
    if KINDS["float"] in names:  # which includes whole numbers
        names.pop(KINDS["int"], None)
    choices = [
        word.strip("' ") for words in re.findall(r"Literal\[([^\]]*)", expected) for word in words.split(",")
    ]
    if choices:
        names[", ".join(dict.fromkeys(choices))] = None
    wanted = " or ".join(names) or "something else"
    return f"--{found['key']} {found['value']} is not understood; expected {wanted}"
