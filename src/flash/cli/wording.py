"""Sentences of the library, which speak Python, in the words of the command line.

Imports only the standard library.
"""

import ast
import re
import shlex

OPTIONS = frozenset(
    {
        *("input_field", "target_field", "target_fields", "field", "delimiter", "encoding", "quoting"),
        *("column_names", "sheet", "input_format"),
        *("label_delimiter", "labels", "num_classes", "multi_label", "unknown_labels"),
        *("unknown_targets", "unknown_values", "annotators"),
        *("train_file", "val_file", "test_file", "predict_file"),
        *("train_hf_dataset", "val_hf_dataset", "test_hf_dataset", "predict_hf_dataset"),
        *("export_json", "train_export_json", "val_export_json", "test_export_json", "predict_export_json"),
        *("input_format", "output_format", "output_delimiter", "output_encoding"),
        *("val_split", "batch_size", "num_workers", "seed", "rows", "ckpt_path", "half"),
    }
)
"""The Python keywords that are options of the same name."""

MODEL_OPTIONS = frozenset(
    {
        *("max_length", "learning_rate", "layer_decay", "lr_scheduler", "loss_fn", "pos_weight", "long_text"),
        *("window_overlap", "revision"),
    }
)
"""Those that are options of the model."""

_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\u00a0": r"\u00a0", "\u3000": r"\u3000"}
"""Characters that delimit labels, and that a sentence cannot show."""
_ESCAPED = {"'": r"\'", "\\": r"\\"}
_TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_KEYWORD = re.compile(
    # Quoted words are the user's, such as a column's name, and stay; an apostrophe inside a word opens none.
    rf"(?<!\w)(?P<quoted>{_TEXT})(?!\w)"
    rf"|(?<![\w.\-/])(?P<name>{'|'.join(sorted(OPTIONS | MODEL_OPTIONS, key=len, reverse=True))})="
    rf"(?P<value>{_TEXT}|\[(?:{_TEXT}|[^\]\[\"'])*\]|\.\.\.|-?[0-9]+(?:\.[0-9]+)?|(?:True|False|None)\b|(?=[\s,;.)]|$))"
)


def as_options(sentence: str) -> str:
    """Keywords with their values as what is typed in a shell.

    >>> as_options("a.csv: the header holds ';': pass delimiter=';', or labels=[...]")
    "a.csv: the header holds ';': type --delimiter ';', or --labels"
    """
    return re.sub(r"\bpass (?=(?:another )?--)", "type ", _KEYWORD.sub(_as_option, sentence))


def _as_option(found: re.Match[str]) -> str:
    if found["quoted"]:
        return found[0]
    name = f"--model.{found['name']}" if found["name"] in MODEL_OPTIONS else f"--{found['name']}"
    return " ".join([name, *_as_words(found["value"])])


def _as_words(value: str) -> list[str]:
    """A Python literal as the words of a shell; none for a value that is left to the user."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return []
    elements = literal if isinstance(literal, list) else [literal]
    return [] if set(map(str, elements)) == {"Ellipsis"} else [_as_word(element) for element in elements]


def _as_word(element: object) -> str:
    if element is ...:
        return "..."
    if element is None or isinstance(element, bool):
        return {None: "null", True: "true", False: "false"}[element]
    text = str(element)
    if not set(text) & set(_ESCAPES):
        return shlex.quote(text)
    return f"$'{''.join({**_ESCAPES, **_ESCAPED}.get(one, one) for one in text)}'"
