"""The options of a server: address, limits, keys. Kept light, because the command line imports it for its help."""

import re
from dataclasses import dataclass, fields
from typing import Any

from flash.core.errors import FlashError, unknown_name
from flash.core.precision import check_precision
from flash.text.classification.scores.outputs import OUTPUTS, Output
from flash.text.classification.scores.thresholds import Thresholds

SCORES = "scores"
LOG_LEVELS = ("debug", "info", "warning", "error")
LEAST_KEY = 8  # characters: a shorter key is easy to guess
HOST = re.compile(r"\*|[\w.-]+|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]?", re.ASCII)


@dataclass(frozen=True)
class ServeOptions:
    """Options of a server; each is a keyword of `TextClassifier.serve` and an option of `flash serve`.

    Attributes:
        host: the address to listen at. The default accepts this machine only; "0.0.0.0" accepts every network.
        port: 0 picks any free port.
        workers: number of processes, each with its own copy of the model.
        output: form of the responses of Flash's `/predict`: "scores" is a dict of label to probability; or any output
            of `Predictor.predict`.
        thresholds: replace the model's own: one number, L numbers, or a dict by label.
        precision: precision of an encoder in torch, as in `Predictor.load`.
        trust_remote_code: as in `Predictor.load`.
        api_keys: a request needs one of these keys; empty: no key is needed. Health checks never need a key.
        allowed_hosts: accepted values of the header `Host`, without ports, such as "labels.example.org"; "*" for all.
            By default a server without keys on a loopback address accepts loopback names only, any other server all.
        cors_origins: origins whose pages may send requests, such as "https://example.org"; "*" for all.
        max_body: maximum size of a request's body in bytes.
        max_texts: maximum number of texts per request.
        max_text_length: maximum length of a text in characters.
        max_connections: maximum number of connections per worker; requests on further connections get 503.
        max_waiting: maximum number of waiting texts per worker; a request beyond it gets 503 with Retry-After.
        max_delay: maximum estimated delay of a worker's queue in seconds, from the speed of earlier batches; a request
            beyond it gets 503 with Retry-After instead of a late response. 64 texts may wait regardless.
        batch_tokens: maximum size of a batch in tokens, estimated from characters. Smaller: short requests wait less
            behind large ones. Larger: higher throughput.
        request_timeout: seconds after which a waiting request gets 504.
        receive_timeout: seconds within which the body must arrive after the headers.
        keep_alive: seconds that an idle connection stays open.
        grace: seconds that requests in flight have to finish when the server is stopped.
        log_level: "debug", "info", "warning" or "error"; from "warning" on, requests are not logged.
        log_texts: whether the texts are logged too. Off by default, for privacy.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    output: Output = SCORES
    thresholds: Thresholds = None
    precision: str | int = "auto"
    trust_remote_code: bool = False
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body: int = 2 * 2**20
    max_texts: int = 1_000
    max_text_length: int = 100_000
    max_connections: int = 1_000
    max_waiting: int = 4_096
    max_delay: float = 0.75
    batch_tokens: int = 4_096
    request_timeout: float = 30.0
    receive_timeout: float = 10.0
    keep_alive: float = 75.0
    grace: float = 30.0
    log_level: str = "info"
    log_texts: bool = False

    def check(self) -> None:
        """Check every option.

        Raises:
            FlashError: describes the first invalid option.
        """
        check_precision(self.precision)
        if isinstance(self.output, str) and self.output not in (SCORES, *OUTPUTS):
            raise FlashError(unknown_name("output", self.output, (SCORES, *OUTPUTS)))
        if self.log_level not in LOG_LEVELS:
            raise FlashError(unknown_name("log_level", str(self.log_level), LOG_LEVELS))
        for name, least, most in _RANGES:
            value: Any = getattr(self, name)
            number = type(value) is int or (type(value) is float and isinstance(_DEFAULTS[name], float))
            if not number or not least <= value <= most:
                raise FlashError(f"{name} is {value!r}; expected a number from {least:,} to {most:,}")
        if self.max_waiting < self.max_texts:
            raise FlashError(
                f"max_waiting is {self.max_waiting:,}, less than the {self.max_texts:,} texts (max_texts) that one "
                "request may have; expected as many or more"
            )
        for key in self.api_keys:
            if len(key) < LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise FlashError(
                    f"an API key has {len(key)} characters, or some that no header holds; expected {LEAST_KEY} or "
                    "more printable ASCII characters without spaces, such as those of: openssl rand -hex 24"
                )
        for host in self.allowed_hosts:
            if not HOST.fullmatch(host):
                raise FlashError(
                    f"allowed_hosts has {host!r}; expected a host's name or address without a port, such as "
                    "labels.example.org, or *"
                )
        for origin in self.cors_origins:
            if origin != "*" and ("://" not in origin or origin.rstrip("/").count("/") != 2):
                raise FlashError(
                    f"cors_origins has {origin!r}; expected a scheme and a host, such as https://example.org, or *"
                )


_DEFAULTS = {field.name: field.default for field in fields(ServeOptions)}
_RANGES = (
    ("port", 0, 65_535),
    ("workers", 1, 1_024),
    ("max_body", 1_024, 2**31),
    ("max_texts", 1, 1_000_000),
    ("max_text_length", 1, 2**31),
    ("max_connections", 1, 1_000_000),
    ("max_waiting", 1, 10_000_000),
    ("max_delay", 0.0, 86_400.0),
    ("batch_tokens", 1, 10_000_000),
    ("request_timeout", 0.01, 86_400.0),
    ("receive_timeout", 0.01, 86_400.0),
    ("keep_alive", 0.0, 86_400.0),
    ("grace", 0.0, 86_400.0),
)
