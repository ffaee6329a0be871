"""YAML for options files in which every text survives a round trip.

jsonargparse reads more words as numbers than it quotes when it writes: a label `1e5` came back as 100000.0. Values on
the command line stay text where YAML would read `#` or `~` as null. Imports jsonargparse, yaml and
the earlier names of options.
"""

from functools import cache
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader

from flash.text.classification.arguments import take_earlier_names

MODE = "flash"
"""The `parser_mode` that `register` defines."""

NO_VALUE = (TypeError, ValueError)
"""Errors, beside those of YAML, that jsonargparse raises for text such as `?`."""


@cache
def register() -> str:
    """Register the loader and dumper with jsonargparse, once; returns their name."""
    set_loader(MODE, load, exceptions=(yaml.YAMLError,))
    set_dumper(MODE, dump)
    return MODE


def load(text: str) -> Any:
    """Load YAML as jsonargparse does, except words that it would turn into null or a list.

    >>> load("1e5"), load("null"), load("#"), load("~"), load("- a"), load("[a, b]")
    (100000.0, None, '#', '~', '- a', ['a', 'b'])
    """
    try:
        value = _yaml()(text)
    except NO_VALUE:
        return text
    if isinstance(value, dict) and isinstance(value.get("model"), dict):
        value["model"] = _with_current_names(value["model"])
    if "\n" in text or text in ("", "null"):
        return value
    return text if value is None or (isinstance(value, list) and not text.startswith("[")) else value


def _with_current_names(model: dict[str, Any]) -> dict[str, Any]:
    """The options of the model in a file, under the names of today; a warning names the earlier ones.

    Version 0.1.0 saved `positive_weight: 1.0`, the default of the linear backbone, with encoders too, where it had no
    meaning: it is left out.
    """
    said = {name: value for name, value in model.items() if (name, value) != ("positive_weight", 1.0)}
    return take_earlier_names(said, "model.{}")


def dump(options: Any) -> str:
    r"""Dump plain values as YAML that `load` reads back unchanged.

    >>> dump({"labels": ["toxic", "1e5", "no", "007"]})
    'labels:\n- toxic\n- "1e5"\n- "no"\n- "007"\n'
    """
    written: str = yaml.dump(options, Dumper=_Quoting, sort_keys=False, allow_unicode=True)
    return written


def _represent(dumper: Any, text: str) -> Any:
    """Quote a text that would not be read back as the same text."""
    try:
        plain = _yaml()(text)
    except (yaml.YAMLError, *NO_VALUE):
        plain = None
    same = isinstance(plain, str) and plain == text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if same else '"')


_Quoting: Any = type("_Quoting", (yaml.SafeDumper,), {})
_Quoting.add_representer(str, _represent)


@cache
def _yaml() -> Any:
    return get_loader("yaml")
