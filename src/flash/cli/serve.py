"""`flash serve`: labels over HTTP. Never imports lightning, and torch only for the checkpoint of an encoder."""

import argparse
import os
import re
from dataclasses import fields
from importlib.util import find_spec

from flash.cli import (
    Parser,
    add_precision_option,
    add_trust_option,
    announced,
    parse_thresholds,
)
from flash.core.errors import FlashError
from flash.core.extras import require
from flash.text.classification.scores.outputs import OUTPUTS
from flash.text.classification.serve.options import LOG_LEVELS, SCORES, ServeOptions

DESCRIPTION = "Answer over HTTP which labels a text has, in four protocols, and with a page for people."
EPILOG = """\
POST /v1/classify is the plain protocol; POST /predict is that of Lightning Flash's
server and of Text Embeddings Inference, POST /v1/moderations OpenAI's. GET / is a
page for people, /docs describes everything, /health, /ready and /metrics are for
machines. SIGTERM or Ctrl-C answers what is in flight and stops; SIGHUP loads the
model's file again, without a request that fails.

  flash serve model.pt
  curl http://127.0.0.1:8000/v1/classify -d '{"texts": ["You are wonderful"]}'
  FLASH_API_KEY=$(openssl rand -hex 24) flash serve model-onnx-int8 --host 0.0.0.0 --workers 4
"""
KEYS = "FLASH_API_KEY"
UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
PACKAGES = ("httptools", "prometheus_client", "pydantic", "starlette", "uvicorn")
"""Packages of the extra `serve` that the server needs; uvloop is used if installed."""


def build_parser() -> Parser:
    """The parser of `flash serve`."""
    usual = ServeOptions()
    parser = Parser("flash serve", DESCRIPTION, EPILOG)

    def add(name: str, metavar: str, about: str) -> None:
        value = getattr(usual, name)
        shown = f"{value:g}" if isinstance(value, float) else f"{value}"
        parser.add_argument(
            f"--{name}",
            type=type(value),
            default=value,
            metavar=metavar,
            help=f"{about} (default: {shown})",
        )

    parser.add_argument(
        "model", metavar="MODEL", help="the file that training saved, or a folder that flash export wrote"
    )
    add("host", "ADDRESS", "where to listen; 0.0.0.0 is every network that this machine is in")
    add("port", "PORT", "0 for any free port")
    add("workers", "N", "number of worker processes, each with its own model")
    parser.add_argument(
        "--api_key",
        action="append",
        default=[],
        metavar="KEY",
        help=f"key that requests must send; may be repeated. Other users of this machine can read it here, unlike the "
        f"variable {KEYS}, which holds one or several with commas",
    )
    parser.add_argument(
        "--allowed_hosts",
        nargs="+",
        default=[],
        metavar="NAME",
        help="hosts that requests may be for, by their header Host, such as labels.example.org, or * for all (default: "
        "loopback names where it listens to this machine alone and has no key, and else all)",
    )
    parser.add_argument(
        "--cors_origin",
        action="append",
        default=[],
        metavar="URL",
        help="whose pages may ask, such as https://example.org, or * for all; may be given several times",
    )
    parser.add_argument(
        "--output",
        choices=(SCORES, *OUTPUTS),
        default=usual.output,
        help=f"what /predict answers Flash's clients (default: {usual.output}, probabilities by label)",
    )
    parser.add_argument(
        "--thresholds",
        nargs="+",
        metavar="T",
        help="not the model's own (auto) but 0.5 for all labels, one per label, or toxic=0.3 insult=0.5",
    )
    add_precision_option(parser)
    add_trust_option(parser)
    parser.add_argument(
        "--max_body",
        type=parse_size,
        default=usual.max_body,
        metavar="SIZE",
        help=f"maximum request size, in bytes or as 500kB, 2MB (default: {usual.max_body})",
    )
    add("max_texts", "N", "maximum texts per request")
    add("max_text_length", "N", "maximum characters per text")
    add("max_connections", "N", "maximum open connections per worker; requests beyond it get 503")
    add("max_waiting", "N", "maximum queued texts per worker; requests beyond it get 503")
    add("batch_tokens", "N", "approximate number of tokens per batch")
    add("max_delay", "SECONDS", "maximum queueing time in a worker; requests beyond it get 503")
    add("request_timeout", "SECONDS", "maximum time to answer a request")
    add("receive_timeout", "SECONDS", "maximum time to receive a body after its head")
    add("keep_alive", "SECONDS", "time that an idle connection stays open")
    add("grace", "SECONDS", "time to finish open requests when the server stops")
    parser.add_argument(
        "--log_level",
        choices=LOG_LEVELS,
        default=usual.log_level,
        help=f"what is written on standard error, a JSON object per line; requests are info (default: {usual.log_level})",
    )
    parser.add_argument("--log_texts", action="store_true", help="also log texts")
    return parser


def parse_size(word: str) -> int:
    """Parse a number of bytes with an optional unit.

    >>> parse_size("2MB"), parse_size("1.5 MiB"), parse_size("500")
    (2000000, 1572864, 500)

    Raises:
        ArgumentTypeError: it is neither.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", word.strip().lower())
    if found is None or (found[2] or "b") not in UNITS:
        raise argparse.ArgumentTypeError(
            f"{word!r} is no size; type bytes, or a number with kB, MB, KiB or MiB"
        )
    return int(float(found[1]) * UNITS[found[2] or "b"])


def options_of(parsed: argparse.Namespace) -> ServeOptions:
    """Server options from the command line, and API keys from the environment."""
    given = vars(parsed)
    named = {field.name: given[field.name] for field in fields(ServeOptions) if field.name in given}
    keys = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    if not all(parsed.api_key) or (KEYS in os.environ and not keys):
        raise FlashError(
            f"an API key is empty, in --api_key or the environment's {KEYS}, and no key would let everybody in; give one, "
            f"or type: unset {KEYS}"
        )
    return ServeOptions(
        **{
            **named,
            "api_keys": tuple(dict.fromkeys([*parsed.api_key, *keys])),
            "allowed_hosts": tuple(parsed.allowed_hosts),
            "cors_origins": tuple(parsed.cors_origin),
            "thresholds": parse_thresholds(parsed.thresholds),
        }
    )


def run(argv: list[str]) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""
    parsed = build_parser().parse(argv)
    options = options_of(parsed)
    options.check()
    for package in PACKAGES:
        if find_spec(package) is None:  # the workers import it
            require(package, "serve")
    from flash.text.classification.serve import logs
    from flash.text.classification.serve.manager import manage

    logs.configure(options.log_level)
    return manage(parsed.model, options, announced)
