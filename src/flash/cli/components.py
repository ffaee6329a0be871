"""Loggers, callbacks and other trainer objects, given by class name on the command line or in an options file.

The syntax is Lightning's: `--trainer.logger CSVLogger --trainer.logger.save_dir logs`, and
`--trainer.callbacks+=ModelCheckpoint` appends. jsonargparse parses it; this module adds defaults and clear errors.
"""

import re
from collections.abc import Mapping
from enum import Enum
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import callbacks, loggers, profilers, strategies
from lightning.pytorch.callbacks import Callback

from flash.cli.help import PROGRAM
from flash.core.errors import FlashError, MissingExtraError, unknown_name

KINDS = {
    "trainer.logger": ("logger", loggers),
    "trainer.callbacks": ("callback", callbacks),
    "trainer.profiler": ("profiler", profilers),
    "trainer.strategy": ("strategy", strategies),
}
"""For each option, the kind of its classes and the Lightning module that defines them."""

PACKAGES = {
    "CometLogger": "comet-ml",
    "DeviceStatsMonitor": "psutil",
    "LitLogger": "litlogger",
    "MLFlowLogger": "mlflow",
    "RichModelSummary": "rich",
    "RichProgressBar": "rich",
    "TensorBoardLogger": "tensorboard",
    "WandbLogger": "wandb",
}
"""The package to install for classes with a dependency that Lightning does not install."""

NO_FOLDERS = (
    "MLFlowLogger: this version of mlflow does not write to a folder; type --trainer.logger.tracking_uri "
    "sqlite:///mlflow.db after the logger's name"
)

_NAMED = re.compile(r"--(?P<key>trainer\.\w+)(?P<more>\+?)(?:=(?P<name>.*))?")
_PROBLEM = re.compile(
    r"Problem with given class_path '(?P<path>[\w.]+)':\s+(?P<what>.+?)(?:\n\s+- |\n\s*Given|$)", re.S
)
_TYPED = re.compile(r"Given value: (?P<value>\S+)")


class Typed(NamedTuple):
    """A class on a command line: the index after its name, its option, whether it is appended, and its name."""

    end: int
    key: str
    more: bool
    name: str


def class_names(key: str) -> list[str]:
    """The Lightning classes that an option such as `trainer.logger` accepts by short name."""
    kind, module = KINDS[key]
    return sorted(name for name in module.__all__ if name.lower() != kind)


def strategy_names() -> list[str]:
    """Names and classes of strategies, without those whose processes return no results."""
    words = strategies.StrategyRegistry.available_strategies()
    kept = [word for word in words if not re.search("spawn|fork|notebook", word)]
    return ["auto", *kept, *class_names("trainer.strategy")]


def prepare(argv: list[str]) -> list[str]:
    """Add a folder for each logger on a command line that needs one and has none.

    Raises:
        FlashError: a class would silently replace an earlier one.
    """
    words, typed = list(argv), _typed_classes(argv)
    root = next((right for left, right in _pairs(argv) if left == "--trainer.default_root_dir"), ".")
    ends = [one.end for one in typed[1:]] + [len(words)]
    for place in reversed(range(len(typed))):
        one = typed[place]
        if not one.more and any(other.key == one.key for other in typed[:place]):
            raise FlashError(f"--{one.key} is given twice; to have both, type --{one.key}+={one.name}")
        folder = re.compile(rf"--{re.escape(one.key)}\.(init_args\.)?save_dir(=|$)")
        if _needs_folder(one.name) and not any(map(folder.match, words[one.end : ends[place]])):
            words.insert(one.end, f"--{one.key}.save_dir={root}")
    return words


def build(parser: ArgumentParser, given: Namespace) -> dict[str, Any]:
    """The trainer's arguments, with an instance of each class that was named.

    Raises:
        MissingExtraError: a class needs a package that is not installed.
        FlashError: a class rejects its options.
    """
    try:
        return dict(vars(parser.instantiate(given, instantiate_groups=False).trainer))
    except ValueError as error:
        message = str(error)
        paths = re.findall(r"class_path='([\w.]+)'", message) or ["trainer"]
        name = paths[-1].rpartition(".")[2]
        if re.search(r"Requirement '.*' not met|No module named", message):
            raise _missing(name) from error
        if "filesystem tracking backend" in message:
            raise FlashError(NO_FOLDERS) from error
        raise FlashError(f"{name}: {_first_reason(message)}; see {PROGRAM} --help") from error
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"a class of the trainer's needs a package: {error}") from error


def has(arguments: Mapping[str, Any], kind: type[Callback]) -> bool:
    """Whether a callback of this class is among the trainer's arguments."""
    given = arguments["callbacks"]
    return any(isinstance(one, kind) for one in (given if isinstance(given, list) else [given]))


def as_saved(given: Namespace) -> Namespace:
    """The options in a form that YAML can store: enum members such as `Interval.step` by their values."""
    plain = given.clone()
    for name in KINDS:
        specs = plain[name] if isinstance(plain[name], list) else [plain[name]]
        for spec in specs:
            if isinstance(spec, Namespace) and "init_args" in spec:
                for option, value in spec.init_args.items():
                    constant = value.value if isinstance(value, Enum) else value
                    spec.init_args[option] = str(constant) if isinstance(constant, torch.device) else constant
    return plain


def mistake(key: str, message: str) -> str:
    """Shorten the parser's error about a class or its options to one sentence."""
    kind, _ = KINDS[key]
    if "is abstract" in message:
        nested = re.search(r"NestedArg\(key='([\w.]+)'", message)
        option = f"--{key}.{nested[1]}" if nested else f"--{key}"
        return f"{option} needs a class before it, such as --{key} {class_names(key)[0]}"
    if other := re.search(r"Expected a dot import path string: (\S*)|has no attribute '(\w+)'", message):
        name = str(other[1] or other[2])
        return str(_missing(name)) if name in PACKAGES else unknown_name(kind, name, class_names(key))
    if problem := _PROBLEM.search(message):
        return _problem(key, str(problem["path"]), str(problem["what"]))
    typed = _TYPED.search(message)
    return f"--{key} {typed['value'] if typed else ''} is no {kind}; expected one of {', '.join(class_names(key))}"


def _problem(key: str, path: str, what: str) -> str:
    """Explain an error in the options of one class."""
    name = path.rpartition(".")[2]
    if unknown := re.search(r"Option '(\w+)' is not accepted", what):
        found = getattr(KINDS[key][1], name, None)
        known = [] if found is None else list(signature(found).parameters)
        return unknown_name(f"option of {name}", unknown[1], [one for one in known if one != "kwargs"])
    if lacking := re.search(r"arguments are required: ([\w, ]+)", what):
        first = lacking[1].split(",")[0]
        return f"{name} needs {lacking[1]}; type --{key}.{first} VALUE after its name"
    if wrong := re.search(r"key \"([\w.]+)\":\s+Expected an? (.*?)\. Got value: (\S+)", what, re.S):
        types = dict.fromkeys(re.findall(r"'(?:[\w.]+\.)?(\w+)'", wrong[2]))
        expected = " or ".join(types) or wrong[2]
        return f"--{key}.{wrong[1]} {wrong[3]} is not understood; {name} expects {expected}"
    return f"--{key} {path}: {' '.join(what.split())}"


def _missing(name: str) -> MissingExtraError:
    """The error for a class whose package is not installed."""
    package = PACKAGES.get(name)
    command = f"type: pip install {package}" if package else "install it with pip"
    return MissingExtraError(
        f"{name} needs the package {package or 'it is made for'!r}, which is not installed; {command}"
    )


def _first_reason(message: str) -> str:
    """The reason that concerns the named class; a union type reports one reason per alternative."""
    reasons: list[str] = re.findall(r"^\s*- (.*)", message, re.M) or [message.partition("\n")[0]]
    of_types = ("Expected a <class", "Not a valid", "Expected a dot")
    return next((one for one in reasons if not one.startswith(of_types)), reasons[0]).rstrip(".")


def _typed_classes(argv: list[str]) -> list[Typed]:
    """The classes that a command line names, in order."""
    found = []
    for place, word in enumerate(argv):
        named = _NAMED.fullmatch(word)
        if named is None or named["key"] not in KINDS:
            continue
        inline = named["name"] is not None
        name = named["name"] if inline else "".join(argv[place + 1 : place + 2])
        found.append(Typed(place + (1 if inline else 2), named["key"], named["more"] == "+", name))
    return found


def _pairs(argv: list[str]) -> list[tuple[str, str]]:
    """Each word as (option, value), the value being after `=` or the next word."""
    following = [*argv[1:], ""][: len(argv)]
    return [
        (word.partition("=")[0], word.partition("=")[2] if "=" in word else after)
        for word, after in zip(argv, following, strict=True)
    ]


def _needs_folder(name: str) -> bool:
    """Whether a Lightning logger requires `save_dir`."""
    found = getattr(loggers, name.rpartition(".")[2], None)
    if not isinstance(found, type) or not name.endswith(found.__name__):
        return False
    folder = signature(found).parameters.get("save_dir")
    return folder is not None and folder.default is Parameter.empty
