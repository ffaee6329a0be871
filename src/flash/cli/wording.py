"""Rewrite Python keywords in the library's messages as command-line options.

Imports only the standard library.
"""

import ast
import re
from functools import cache

from flash.cli.help import SOURCES, data_options, model_options
from flash.cli.signatures import read_options, shell_word

NOT_OPTIONS = {"predictor", "source", "target", "thresholds"}
"""Keywords of `predict_file` that are not options, or are options of the model in training."""

_TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""


@cache
def option_names() -> dict[str, str]:
    """The option of each Python keyword, such as `--encoding` of encoding and `--model.max_length` of max_length."""
    options = [option for source in SOURCES for option in data_options(source)]
    options += read_options("text/classification/predict_files/streams.py", "predict_file")
    names = {option.name for option in options} | {"ckpt_path", "half"}
    model = {option.name.removeprefix("model."): f"--{option.name}" for option in model_options()}
    return {name: model.get(name, f"--{name}") for name in {*names, *model} - NOT_OPTIONS}


@cache
def _keyword() -> re.Pattern[str]:
    """Quoted text, or a keyword with its value."""
    names = "|".join(sorted(option_names(), key=len, reverse=True))
    return re.compile(
        # Quoted words are the user's, such as a column's name, and stay; an apostrophe inside a word opens none.
        rf"(?<!\w)(?P<quoted>{_TEXT})(?!\w)|(?<![\w.\-/])(?P<name>{names})="
        # A keyword whose option follows in brackets stays.
        rf"(?P<value>{_TEXT}|\[(?:{_TEXT}|[^\]\[\"'])*\]|\.\.\.|-?[0-9]+(?:\.[0-9]+)?|(?:True|False|None)\b|(?=[\s,;.)]|$))"
        r"(?! \(--)"
    )


def as_options(sentence: str) -> str:
    """Keywords with their values as what is typed in a shell.

    >>> as_options("a.csv: the header holds ';': pass delimiter=';', or labels=[...]")
    "a.csv: the header holds ';': type --delimiter ';', or --labels"
    """
    if "=" in sentence:  # else there is nothing to rewrite, and the sources need not be read
        sentence = _keyword().sub(_as_option, sentence)
    return re.sub(r"\bpass (?=(?:another )?--)", "type ", sentence)


def _as_option(found: re.Match[str]) -> str:
    return found["quoted"] or " ".join([option_names()[found["name"]], *_as_words(found["value"])])


def _as_words(value: str) -> list[str]:
    """A Python literal as the words of a shell; none for a value that is left to the user."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return []
    elements = literal if isinstance(literal, list) else [literal]
    return [] if set(map(str, elements)) == {"Ellipsis"} else [shell_word(element) for element in elements]
