"""Read options from the signatures and docstrings of this package's sources, without importing them.

Importing them would import torch and Lightning, which takes seconds. The first sentence that a docstring has about an
argument is the option's help text; what follows it is for the Python reference. Imports only the standard library.
"""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parents[1]

PLACEHOLDERS = {
    **dict.fromkeys(("int", "float"), "N"),
    **dict.fromkeys(("Literal", "Annotators"), "WHICH"),
    **dict.fromkeys(("Fields", "InputField"), "COLUMN ..."),
    "bool": "BOOL",
    "str": "TEXT",
    "tuple": "PAIR",
    "list": "NAME ...",
    "Files": "FILE ...",
    "UnknownValues": "VALUE ...",
}
"""The first name in an annotation, and what stands for the option's value in the help; VALUE for any other."""

_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\u00a0": r"\u00a0", "\u3000": r"\u3000"}
"""Characters that delimit labels and are invisible in a message."""
_ESCAPED = {"'": r"\'", "\\": r"\\"}

Definition = ast.FunctionDef | ast.ClassDef


class Option(NamedTuple):
    """A command-line option; `value` is the placeholder of its value, empty for a switch."""

    name: str
    value: str
    words: str
    default: Any = None
    required: bool = False


@cache
def read_options(file: str, name: str) -> tuple[Option, ...]:
    """The documented arguments of a function, a method or a class, or the fields of a dataclass, as options.

    An argument whose default is no literal, such as a function, is left out.

    Args:
        file: the source file, relative to the package `flash`.
        name: such as `predict_file`, `LinearConfig` or `TextClassificationData.from_csv`.
    """
    definitions = _definitions(file)
    node = definitions[name]
    if isinstance(node, ast.FunctionDef):
        return tuple(_arguments(node, node))
    if isinstance(init := definitions.get(f"{name}.__init__"), ast.FunctionDef):
        return tuple(_arguments(init, node))
    return tuple(_fields(node))


def read_summary(file: str, name: str) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(_definitions(file)[name]) or "").partition("\n")[0]


def shell_word(value: object) -> str:
    """A Python value as one word of a shell.

    >>> print(shell_word(True), shell_word("a b"), shell_word({"toxic": 0.3}))
    true 'a b' '{"toxic": 0.3}'
    """
    if value is ...:
        return "..."
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict | list | tuple):
        return shlex.quote(json.dumps(value))
    text = str(value)
    if not set(text) & set(_ESCAPES):
        return shlex.quote(text)
    return f"$'{''.join({**_ESCAPES, **_ESCAPED}.get(one, one) for one in text)}'"


@cache
def _definitions(file: str) -> dict[str, Definition]:
    """The functions, classes and methods of a source file by qualified name."""
    found: dict[str, Definition] = {}
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, Definition):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {f"{node.name}.{method.name}": method for method in methods}
    return found


def _arguments(function: ast.FunctionDef, documented: Definition) -> Iterator[Option]:
    section = (ast.get_docstring(documented) or "").partition("Args:\n")[2].partition("\n\n")[0]
    words = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", section, re.M))
    given = function.args
    missing = [None] * (len(given.args) - len(given.defaults))
    defaults = [*missing, *given.defaults, *given.kw_defaults]
    for argument, default in zip([*given.args, *given.kwonlyargs], defaults, strict=True):
        if argument.arg in words and argument.annotation is not None:
            yield from _option(argument.arg, argument.annotation, default, words[argument.arg])


def _fields(node: ast.ClassDef) -> Iterator[Option]:
    for field, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            words = ast.literal_eval(after.value)
            yield from _option(ast.unparse(field.target), field.annotation, field.value, words)


def _option(name: str, annotation: ast.expr, default: ast.expr | None, words: str) -> Iterator[Option]:
    """The option; none if its default is no literal."""
    try:
        value = None if default is None else ast.literal_eval(default)
    except ValueError:
        return
    kind = re.split(r"\W", ast.unparse(annotation), maxsplit=1)[0]
    yield Option(name, PLACEHOLDERS.get(kind, "VALUE"), _help_text(words), value, default is None)


def _help_text(docstring: str) -> str:
    """The first sentence of a docstring; Python literals in backticks become what is typed in a shell."""
    sentence = re.split(r"\.(?:\s|$)", " ".join(docstring.split()), maxsplit=1)[0]
    text = re.sub("`([^`]*)`", _typed, sentence)
    return text[0].lower() + text[1:] if re.match("[A-Z][a-z ]", text) else text


def _typed(found: re.Match[str]) -> str:
    try:
        return shell_word(ast.literal_eval(found[1]))
    except (ValueError, SyntaxError):  # the name of an argument or of a class
        return found[1]
