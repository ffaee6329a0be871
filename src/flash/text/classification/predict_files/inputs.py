"""Which files a prediction reads, their formats, and the output file for each."""

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from flash.core.errors import DataError, FlashError, unknown_name
from flash.core.files import overwritten
from flash.text.classification.reading.excel import EXCEL
from flash.text.classification.reading.files import PACKED, File, ending, find_files

ENDINGS = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    **dict.fromkeys(EXCEL, "excel"),
}
"""File ending to format; `.txt` is tab-separated if its header contains a tab."""

FORMATS = ("csv", "tsv", "jsonl", "parquet")
INPUT_FORMATS = (*FORMATS, "excel", "fasttext")
SHOWN = 5  # maximum number of files that a message names


@dataclass(frozen=True)
class Input:
    """A file to read, or standard input.

    Attributes:
        path: the file; `-` for standard input.
        kind: its format, one of `FORMATS`.
    """

    path: str | Path
    kind: str

    @property
    def name(self) -> str:
        """The file's name in messages."""
        return "standard input" if str(self.path) == "-" else str(self.path)


@dataclass(frozen=True)
class Output:
    """A file to write, or standard output.

    Attributes:
        path: the file; `-` for standard output.
        kind: its format, one of `FORMATS`.
        inputs: the files whose rows it gets, in order.
    """

    path: str | Path
    kind: str
    inputs: tuple[Input, ...]


def find_format(path: str | Path, asked: str | None, option: str, default: str = "csv") -> str:
    """Return the requested format, else the format of the file's ending; `default` for a standard stream."""
    if asked is not None:
        formats = INPUT_FORMATS if option == "input_format" else FORMATS
        if asked not in formats:
            raise FlashError(unknown_name("format", asked, formats))
        return asked
    if str(path) == "-":
        return default
    if option == "output_format" and ending(path) in EXCEL:
        raise FlashError(f"{path}: Excel files are read, not written; name a .csv file, which Excel opens")
    packed = Path(path).suffix.lower()
    if packed in PACKED and option == "output_format":
        raise FlashError(
            f"{path}: output is not packed; name a file without {packed!r}, or pipe it: > {path}"
        )
    if ending(path) not in ENDINGS:
        raise FlashError(
            f"{path}: the ending tells no format (known: {', '.join(ENDINGS)}); "
            f"pass {option}='csv', or tsv, jsonl or parquet in its place"
        )
    return ENDINGS[ending(path)]


def find_inputs(source: str | Path | Sequence[str | Path], asked: str | None) -> list[Input]:
    """Find the files for a path, a glob pattern, a folder, or a list of these.

    Files of a pattern or folder are sorted by name. A folder stands for the files directly in it that have a known
    ending or, if a format is given, for all its files except hidden ones.

    Args:
        source: what the user named; `-` alone for standard input.
        asked: the format of all files; None for the format of each file's ending.

    Raises:
        DataError: no file was found, a file is named twice, or standard input is combined with files.
        FlashError: the format cannot be determined from the ending.
    """
    entries = [source] if isinstance(source, str | Path) else list(source)
    if "-" in map(str, entries):
        if len(entries) > 1:
            raise DataError("- is standard input, and stands alone; leave it out, or leave the files out")
        return [Input("-", find_format("-", asked, "input_format"))]
    found: list[File] = []
    for entry in entries:
        folder = Path(entry).expanduser()
        if folder.is_dir():
            found += _files_in(folder, asked)
            continue
        if not set(str(entry)) & set("*?["):
            find_format(entry, asked, "input_format")  # report a wrong ending before any problem of the file
        found += find_files([entry], asked or "csv")
    twice = [path for path, count in Counter(found).items() if count > 1]
    if twice:
        raise DataError(f"{twice[0]} is named more than once, and would be predicted so; name each file once")
    return [Input(_place(path), find_format(_place(path), asked, "input_format")) for path in found]


def _place(file: File) -> str | Path:
    return file if isinstance(file, Path) else str(file)


def _files_in(folder: Path, asked: str | None) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = [path for path in files if asked is not None or ending(path) in ENDINGS]
    others = [path.name for path in files if path not in set(found)]
    named = ", ".join(others[:SHOWN]) + ("" if len(others) <= SHOWN else f" and {len(others) - SHOWN} more")
    if not found:
        raise DataError(
            f"the folder {folder} holds no file to read ({named or 'it is empty'}); expected endings are "
            f"{', '.join(ENDINGS)}; pass input_format=... for others"
        )
    if others:
        warnings.warn(
            f"{folder}: {len(others)} file{'s' * (len(others) > 1)} of other endings left out ({named})",
            UserWarning,
            stacklevel=4,
        )
    return found


def plan_outputs(
    inputs: Sequence[Input], target: str | Path, asked: str | None, model: str | Path | None = None
) -> list[Output]:
    """Return one output for all inputs, or one output per input if `target` is a folder or ends with `/`.

    In a folder, an output has its input's name without a compression ending, and the ending of its own format.

    Args:
        inputs: the files to read.
        target: a file, a folder, or `-` for standard output.
        asked: the format of the outputs; None for the format of each file's ending.
        model: the model's file or folder, if known; it must not be overwritten.

    Raises:
        FlashError: the format cannot be determined from the ending, two outputs would have the same name, or an output
            would overwrite an input or the model.
    """
    if str(target) == "-" or not (str(target).endswith("/") or Path(target).expanduser().is_dir()):
        default = inputs[0].kind if inputs[0].kind in ("jsonl", "tsv") else "csv"
        outputs = [Output(target, find_format(target, asked, "output_format", default), tuple(inputs))]
    else:
        outputs = [_output_in(str(target), each, asked) for each in inputs]
    _check_outputs(outputs, inputs, model)
    return outputs


def _output_in(folder: str, source: Input, asked: str | None) -> Output:
    if str(source.path) == "-":
        raise FlashError(f"{folder} is a folder; name a file in it for the rows of standard input")
    name = Path(source.path).name
    if Path(name).suffix.lower() in PACKED:
        name = Path(name).stem
    kind = asked or (source.kind if source.kind in FORMATS else "csv")
    if ENDINGS.get(ending(name)) != kind:
        name = f"{Path(name).stem}.{kind}"
    return Output(f"{folder.rstrip('/')}/{name}", kind, (source,))


def _check_outputs(outputs: Sequence[Output], inputs: Collection[Input], model: str | Path | None) -> None:
    """Raise FlashError if an output would overwrite an input, the model or another output."""
    twice = [path for path, count in Counter(str(output.path) for output in outputs).items() if count > 1]
    if twice:
        places = [str(output.inputs[0].path) for output in outputs if str(output.path) == twice[0]]
        raise FlashError(
            f"{' and '.join(places[:2])} would both become {twice[0]}; name files of different names, or one output for "
            "all of them"
        )
    read = [each.path for each in inputs]
    for output in outputs:
        name = "standard output" if str(output.path) == "-" else output.path
        if (
            str(output.path) in {str(path) for path in read} - {"-"}
            or overwritten(output.path, read) is not None
        ):
            raise FlashError(
                f"{name} is the input itself, which would be lost; name another file for the output"
            )
        if model is not None and overwritten(output.path, [model]) is not None:
            raise FlashError(f"{name} is the model, which would be lost; name another file for the output")
