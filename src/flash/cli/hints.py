"""The last lines that `flash text_classification` prints: what was saved, and commands to copy and run.

Imports neither torch nor lightning.
"""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flash.cli.help import data_options
from flash.text.classification.predict_files.inputs import ENDINGS
from flash.text.classification.reading.files import ending

TRY = "try_flash.csv"
SAMPLE = r"""'text,label\n"Thank you for your help",\n"You are an idiot","toxic,insult"\n'"""
"""Two comments and the names of their labels, as the shell's `printf` takes them."""

FORMATS = {
    "from_csv": ("csv", "tsv", "excel"),
    "from_json": ("jsonl",),
    "from_parquet": ("parquet",),
    "from_fasttext": ("fasttext",),
}
"""What `flash predict` calls the formats of a source's files, the usual one first."""

READING = ("delimiter", "encoding", "quoting", "column_names", "sheet")
TARGETS = ("label_delimiter", "unknown_labels", "unknown_targets", "unknown_values")
"""Options of a source that the other verbs have, too."""


def closing_words(
    model: str, config: Path, source: str, data: Mapping[str, Any], labels: Sequence[str]
) -> str:
    """What was saved, and the commands to type next.

    Args:
        model: the file that was saved.
        config: where the options that made it were saved.
        source: what it was trained on.
        data: the options of that source.
        labels: of the model.
    """
    saved = f"Saved {model}, and the options that made it in {config}. Try it:"
    flash, model = shlex.quote(program()), shlex.quote(model)
    if source == "from_sample":
        return f"""
The comments are synthetic: the numbers above say nothing about real ones.
{saved}

  printf {SAMPLE} > {TRY}
  {flash} predict {model} --input {TRY} --input_field text --output predictions.csv
  {flash} evaluate {model} {TRY} --input_field text

and then with files of your own in place of {TRY}, and their column of texts in place of text.
To answer over HTTP, type: {flash} serve {model}"""
    texts, targets = _file(source, data, "predict", "train"), _file(source, data, "test", "val")
    predict = [texts, *_reading(source, data, texts), *_prefix(data), "--output", "predictions.csv"]
    evaluate = [targets, *_reading(source, data, targets), *_targets(source, data, labels)]
    return f"""
{saved}

  {printed_text(data.get("input_field"))} | {flash} predict {model} --input -

and, with files of your own in place of these:

  {flash} predict {model} --input {shlex.join(predict)}
  {flash} evaluate {model} {shlex.join(evaluate)}

To answer over HTTP, type: {flash} serve {model}"""


def printed_text(fields: str | Sequence[str] | None) -> str:
    r"""A command that prints a CSV of one text, which a model of these fields takes.

    >>> print(printed_text("comment"))
    printf 'text\n"Thank you for your help"\n'
    >>> print(printed_text(["title", "body"]))
    printf '"title","body"\n"Thank you for your help","Thank you for your help"\n'
    """
    text = '"Thank you for your help"'
    if fields is None or isinstance(fields, str) or len(fields) == 1:
        return rf"printf 'text\n{text}\n'"
    header = ",".join(f'"{field}"'.replace("%", "%%") for field in fields)
    return "printf " + shlex.quote(rf"{header}\n{','.join([text] * len(fields))}\n")


def program() -> str:
    """How to call this command from here: `flash`, or its path where the shell would not find this one."""
    found, called = shutil.which("flash"), Path(sys.argv[0])
    if called.name != "flash" or (found is not None and Path(found).resolve() == called.resolve()):
        return "flash"
    return str(called)


def _file(source: str, data: Mapping[str, Any], *splits: str) -> str:
    """The first file of the first split that has one, or a name that stands for one of the user's."""
    for split in splits:
        found = data.get(f"{split}_file")
        if found and source in FORMATS and not data.get("field"):  # a field is no business of the other verbs
            return str(_listed(found)[0])
    name = {"predict": "comments", "test": "test"}[splits[0]]
    return f"{name}.{FORMATS.get(source, FORMATS['from_csv'])[0]}"


def _reading(source: str, data: Mapping[str, Any], file: str) -> list[str]:
    """The options that read a file as those of the training were read."""
    fields = data.get("input_field")
    words = ["--input_field", *_listed(fields)] if fields else []
    if source in FORMATS and ENDINGS.get(ending(file)) not in FORMATS[source]:
        words += ["--input_format", FORMATS[source][0]]
    return words + _changed(source, data, READING)


def _targets(source: str, data: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """The options that `flash evaluate` needs to find and read the targets."""
    names = _listed(data.get("target_fields") or [])
    found = (*labels, "labels", "label") if len(names) == 1 else labels
    words = [] if set(names) <= set(found) else ["--target_fields", *names]
    return words + _changed(source, data, TARGETS)


def _changed(source: str, data: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Those of the named options whose values are not the defaults, as words of a command line."""
    words = []
    for option in data_options(source):
        value = data.get(option.name)
        if option.name in names and value not in (None, option.default):
            words += [f"--{option.name}", *map(_word, _listed(value))]
    return words


def _word(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    return str(value).replace("\t", r"\t").replace("\n", r"\n")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _prefix(data: Mapping[str, Any]) -> list[str]:
    """`flash predict` adds a column of this name, which must not be there yet."""
    return ["--prefix", "predicted_"] if "labels" in _listed(data.get("target_fields")) else []
