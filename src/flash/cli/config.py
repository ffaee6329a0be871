"""The YAML of options files: text that is written comes back as the same text, whatever it looks like.

jsonargparse reads more words as numbers than it quotes when it writes: a label `1e5` came back as 100000.0. And what
is typed for an option of text is that text: of `#` or `~` YAML would make nothing. Imports jsonargparse, yaml and the
names of options.
"""

from functools import cache
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader

from flash.text.classification.arguments import take_earlier_names

MODE = "flash"
"""What a parser is given as `parser_mode` once `register` was called."""

NO_VALUE = (TypeError, ValueError)
"""What jsonargparse's reading raises, beside errors of YAML, for text that is none of its values, such as `?`."""


@cache
def register() -> str:
    """Tell jsonargparse, once, of this way of reading and writing; returns its name there."""
    set_loader(MODE, load, exceptions=(yaml.YAMLError,))
    set_dumper(MODE, dump)
    return MODE


def load(text: str) -> Any:
    """YAML as jsonargparse reads it, but for words that it would drop or make lists of.

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
    r"""Plain values as YAML that `load` reads back.

    >>> dump({"labels": ["toxic", "1e5", "no", "007"]})
    'labels:\n- toxic\n- "1e5"\n- "no"\n- "007"\n'
    """
    written: str = yaml.dump(options, Dumper=_Quoting, sort_keys=False, allow_unicode=True)
    return written


def _represent(dumper: Any, text: str) -> Any:
    """A text in quotes where it would come back as something other than the same text."""
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
