"""The `flash` command: one module per verb, imported only when it is called.

This module holds what the verbs share: the option parser and common options.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NoReturn

from flash.cli.help import data_options, described
from flash.cli.wording import as_options
from flash.core.errors import FlashError, unknown_name, visible
from flash.core.launch import rank

if TYPE_CHECKING:
    from flash.text.classification.predictor import Predictor


def note(sentence: str) -> None:
    """Write a note to standard error, from the first process only."""
    if rank() == 0:
        sys.stderr.write(f"flash: note: {visible(sentence)}\n")


def announced(predictor: "Predictor") -> AbstractContextManager[None]:
    """Announce the precision that was measured to be faster, or that the linear backbone compiles its loops.

    The compiler is imported only for the linear backbone.
    """
    from flash.text.classification.backbones.linear.model import Linear

    if sentence := getattr(predictor.backbone, "precision_sentence", ""):
        note(as_options(sentence))

    if not isinstance(predictor.backbone, Linear):
        return nullcontext()
    from flash.text.classification.backbones.linear.kernels import announced_compilation

    return announced_compilation(note)


class Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors; options accept `-` for `_`, as in `--input-field`.

    An option without a help text has that of the same option of `flash text_classification from_csv`.
    """

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def format_help(self) -> str:
        """The help, once every option has its text."""
        texts = {option.name: described(option) for option in data_options("from_csv")}
        for action in self._actions:
            action.help = texts[action.dest] if action.help is None else action.help
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise the message that argparse would print below the usage.

        Raises:
            FlashError: always.
        """
        raise FlashError(f"{message}; see {self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse a command line.

        Raises:
            FlashError: an unknown or missing option or argument, or an invalid value.
        """
        options, unknown = self.parse_known_args(self._arguments_first([_underscored(word) for word in argv]))
        if unknown and unknown[0].startswith("-"):
            known = [name for action in self._actions for name in action.option_strings]
            self.error(unknown_name("option", unknown[0].partition("=")[0], known))
        if unknown:
            self.error(f"{unknown[0]!r} is one argument too many")
        return options

    def _arguments_first(self, words: list[str]) -> list[str]:
        """Move positional arguments to the front.

        An option with several values would otherwise swallow a positional argument after it, such as MODEL in
        `--input a.csv model.pt`: missing arguments are taken from the end of the last list that is long enough.
        """
        wanted = sum(not action.option_strings for action in self._actions)
        arguments: list[int] = []  # indices of positional arguments
        long: list[range] = []  # indices of the values of each option with several
        position = 0
        while position < len(words):
            action = self._option_string_actions.get(words[position].partition("=")[0])
            end = position + 1
            if action is None and _is_value(words[position]):
                arguments.append(position)
            elif action is not None and action.nargs == "+":
                while end < len(words) and _is_value(words[end]):
                    end += 1
                long.append(range(position + 1, end))
            elif action is not None and action.nargs is None and "=" not in words[position]:
                end += 1
            position = end
        missing = wanted - len(arguments)
        if values := next((values for values in reversed(long) if 0 < missing < len(values)), None):
            arguments = sorted([*arguments, *values[-missing:]])
            others = [word for place, word in enumerate(words) if place not in set(arguments)]
            return [*(words[place] for place in arguments), *others]
        return words


def _is_value(word: str) -> bool:
    return word == "-" or not word.startswith("-")


def parse_thresholds(words: Sequence[str] | None) -> float | list[float] | dict[str, float] | None:
    """Convert the values of `--thresholds` for `Predictor.predict`.

    >>> parse_thresholds(["0.5"]), parse_thresholds(["0.3", "0.5"]), parse_thresholds(["toxic=0.3"])
    (0.5, [0.3, 0.5], {'toxic': 0.3})

    Raises:
        FlashError: a word that is neither a number nor `label=number`, or a mixture of both.
    """
    if not words or list(words) == ["auto"]:
        return None
    named = ["=" in word for word in words]
    try:
        if all(named):
            return {label: float(value) for label, _, value in (word.rpartition("=") for word in words)}
        values = [float(word) for word in words]
    except ValueError:
        raise FlashError(
            f"--thresholds {' '.join(words)} is not understood; type one number for all labels, one per label "
            "in their order, label=number for some of them, or auto"
        ) from None
    return values if len(values) > 1 else values[0]


def note_unused_thresholds(thresholds: object, multi_label: bool) -> None:
    """Note that `--thresholds` has no effect on a single-label model."""
    if thresholds is not None and not multi_label:
        note("--thresholds changes nothing: this model gives each text its one most probable label")


def add_csv_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flash text_classification from_csv` that say how files are read."""
    parser.add_argument("--encoding", default="utf-8", metavar="NAME")
    parser.add_argument(
        "--delimiter",
        type=lambda word: word.replace("\\t", "\t"),
        metavar="D",
    )
    parser.add_argument("--quoting", choices=("true", "false"), default="true")
    parser.add_argument("--column_names", nargs="+", metavar="NAME")
    parser.add_argument("--sheet", metavar="NAME")


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """Add the precision in which an encoder predicts."""
    parser.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help="of an encoder's model file: 32, bf16, or auto (default): bf16 where it is measured to be at least 1.2 "
        "times as fast; 32 where predictions must not differ between machines",
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add the permission to run Python code that came with the encoder."""
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run the Python code that came with the encoder, if the model was trained with it",
    )


def _underscored(word: str) -> str:
    """Replace `-` by `_` in the name of an option, not in its value."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word
