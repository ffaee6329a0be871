"""Parse lists written as text: the form of a cell, and the values of a list.

Only flat lists are parsed, by regular expressions; nothing is evaluated. Imports only the standard library.
"""

import ast
import json
import re
from typing import Literal, NamedTuple, TypeAlias

Form: TypeAlias = Literal[
    "plain",
    "missing",
    "list",
    "choices",
    "tags",
    "unquoted",
    "objects",
    "object",
    "nested",
    "cut",
    "broken",
    "long",
]
Value: TypeAlias = str | int | float | bool | None

MISSING = frozenset({"nan", "none", "null", "<na>"})
CLOSING = {"[": "]", "(": ")", "{": "}"}
LONGEST = 50_000  # maximum number of characters of a list

_STRING = r"""[bBuU]?'(?:[^'\\]|\\.)*'|[bBuU]?"(?:[^"\\]|\\.)*\""""
# no leading zeros (007 is a name), and at most as many digits as every int64 has
_NUMBER = r"[+-]?(?:(?:0|[1-9][0-9]{0,17})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_WORD = r"(?i:true|false|none|null|nan|<na>)"
_LITERAL = rf"{_STRING}|{_NUMBER}|{_WORD}"
# `open` takes the rest of the cell after an unclosed quote; otherwise the search would restart at every later quote
_ITEM = re.compile(rf"np\.\w+\((?P<wrapped>{_LITERAL})\)|(?P<bare>{_LITERAL})|(?P<open>['\"].*)", re.DOTALL)
# a list whose items were replaced by null characters: with commas as in Python and JSON, or with spaces as in NumPy
_SKELETON = re.compile(r"(?:\0(?: ?, ?\0)* ?,?|\0(?: \0)*)?")
_WRAPPED = re.compile(
    r"(?:np\.|numpy\.|pd\.|torch\.)?(?:array|tensor|set|frozenset|list|tuple|Index|deque|OrderedSet)\("
    r"(?P<inside>.*?)(?:,\s*dtype=(?:[^,()]|\([^()]*\))*)?\)",
    re.DOTALL,
)
_CHOICES = re.compile(r"""\{\s*(["'])choices\1\s*:\s*\[(?P<inside>.*)\]\s*\}""", re.DOTALL)
_KEY = re.compile(rf"\s*(?:{_STRING}|\w+)\s*:")
_TAGS = re.compile(r"(?:<[^<>]+>[\s,;|]*)+|(?:\[[^\[\]]+\]){2,}")

SUSPICIOUS = (
    r"^\s*(?:[\[({<']|b['\"]|\"[\[{(]|(?:np\.|numpy\.|pd\.|torch\.)?"
    r"(?:array|tensor|set|frozenset|list|tuple|Index|deque|OrderedSet)\()"
)
"""Start of a cell that may have another form than `plain`; a regular expression for Arrow."""


class Cell(NamedTuple):
    """A parsed cell of text.

    Attributes:
        form: `list` for a flat list of names or numbers in any of Python's, JSON's and NumPy's spellings; `choices` for
            Label Studio's `{"choices": [...]}`; `tags` for `<a><b>` and `[a][b]`; `unquoted` for `[a, b]` and `{a,b}`; `objects`
            and `object` for a list of dicts and a dict; `cut` for an array that NumPy shortened with `...`;
            `broken` for quotes that do not pair up; `long` for more than `LONGEST` characters; `missing` for `nan`
            and its kin; else `plain`.
        values: the values of a `list`, of `choices` and of `tags`.
        text: the inside of the brackets of an `unquoted` list, else the cell without surrounding white space.
    """

    form: Form
    values: tuple[Value, ...] = ()
    text: str = ""


def parse_cell(cell: str) -> Cell:
    """Return the form of a cell and, for a list, its values.

    >>> parse_cell("['a' 'b']").values, parse_cell('{"choices": ["a"]}').form, parse_cell("[a, b]")
    (('a', 'b'), 'choices', Cell(form='unquoted', values=(), text='a, b'))
    """
    text = cell.strip()
    if len(text) > LONGEST:
        return Cell("long", text=text)
    if text.lower() in MISSING:
        return Cell("missing", text=text)
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped and wrapped["inside"].strip()[:1] in ("", *CLOSING):
        text = wrapped["inside"].strip() or "[]"
    if _TAGS.fullmatch(text):
        return Cell("tags", tuple(tag.strip() for tag in re.findall(r"[<\[]([^<>\[\]]+)[>\]]", text)), text)
    if text[:1] in CLOSING and text[-1:] == CLOSING[text[:1]]:
        return _in_brackets(text)
    if text[:2] in ('"[', '"{', '"(') and text[-1:] == '"':
        return _encoded_twice(text)
    values = _items(text) if text[:1] == "'" or text[:2] in ("b'", 'b"') else None
    if values is None:
        return Cell("plain", text=text)
    return Cell("list", () if values == ("",) else values, text)  # '' is an empty list, not a name


def _encoded_twice(text: str) -> Cell:
    """Parse a JSON list that was encoded as JSON a second time; a name in double quotes stays a name."""
    try:
        inner = parse_cell(str(json.loads(text)))
    except ValueError:
        return Cell("plain", text=text)
    return Cell("plain", text=text) if inner.form in ("plain", "unquoted", "tags") else inner


def _in_brackets(text: str) -> Cell:
    inside, opening = text[1:-1], text[0]
    values = _items(inside)
    if values is not None:
        number_in_brackets = opening == "(" and len(values) == 1 and "'" not in text and '"' not in text
        return (
            Cell("plain", text=text) if number_in_brackets and "," not in text else Cell("list", values, text)
        )
    choices = _CHOICES.fullmatch(text)
    if choices and (values := _items(choices["inside"])) is not None:
        return Cell("choices", values, text)
    start = inside.lstrip()
    if opening == "{" and _KEY.match(inside):
        return Cell("object", text=text)
    if opening != "{" and start.startswith("{"):
        return Cell("objects", text=text)
    if start.startswith(("[", "(")) and opening != "{" and start[1:2] in ("'", '"', *"0123456789[("):
        return Cell("nested", text=text)
    if re.search(r"\.\.\.", _ITEM.sub(r"\g<open>", inside)):
        return Cell("cut", text=text)
    if start.startswith("'") or (
        start.startswith('"') and opening != "{"
    ):  # {"a b",c} is valid in PostgreSQL
        return Cell("broken", text=text)
    paired = opening not in inside and CLOSING[opening] not in inside  # False for `[x]|[y]`
    return Cell("unquoted", text=inside) if paired else Cell("plain", text=text)


def _items(inside: str) -> tuple[Value, ...] | None:
    """Return the names and numbers of a flat list; None if it is not a flat list."""
    skeleton = " ".join(_ITEM.sub("\0\\g<open>", inside).split())
    if "\0" in inside or _SKELETON.fullmatch(skeleton) is None:
        return None
    try:
        return tuple(_value(found["wrapped"] or found["bare"]) for found in _ITEM.finditer(inside))
    except (ValueError, SyntaxError):  # an invalid escape, or half a surrogate pair
        return None


def _value(literal: str) -> Value:
    if literal[-1] in "'\"":
        return _string(literal)
    word = literal.lower()
    if word in ("true", "false"):
        return word == "true"
    if word in MISSING:
        return None
    return float(literal) if set(word) & set(".e") else int(literal)


def _string(literal: str) -> str:
    if literal[0] in "bB":
        return str(ast.literal_eval(literal).decode())
    quoted = literal.lstrip("uU")
    if "\\" not in quoted:
        return quoted[1:-1]
    try:
        text = json.loads(quoted)
    except ValueError:  # Python's single quotes, or escapes that only Python knows
        text = ast.literal_eval(quoted)
    text.encode()  # raises for half a surrogate pair
    return str(text)
