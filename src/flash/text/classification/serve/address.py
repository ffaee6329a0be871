"""Addresses: where the server listens, its URL, and which host names it accepts."""

import errno
import ipaddress
import os
import socket
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from flash.core.errors import FlashError
from flash.text.classification.serve.options import ServeOptions

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
BACKLOG = 2_048  # connections that the operating system queues until a worker accepts them


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address but does not listen yet.

    Args:
        host: an address or host name of this machine.
        port: 0 picks any free port.

    Raises:
        FlashError: the address is in use, forbidden, unknown or not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise FlashError(
            f"the host {host!r} is not known; expected an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 "
            "for every network that it is in"
        ) from error
    # a name such as localhost has several addresses; IPv4 is the one that every client tries
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise FlashError(_no_address(host, port, error)) from error
    sock.setblocking(False)
    return sock


def listen(sock: socket.socket, host: str) -> None:
    """Let clients connect to a bound socket.

    Raises:
        FlashError: another program started to listen there after the socket was bound.
    """
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        raise FlashError(_no_address(host, sock.getsockname()[1], error)) from error


def _no_address(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another program; stop that, or choose another port: --port "
            f"{port + 1 if port < 65_535 else 8000}, or 0 for any that is free"
        )
    if error.errno == errno.EACCES:
        return f"port {port} of {host} is for administrators; choose one from 1024 on, such as --port 8000"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{host} is no address of this machine; expected one of its own: --host 127.0.0.1 for itself alone, 0.0.0.0 "
            "for every network that it is in"
        )
    return f"port {port} of {host} cannot be listened at: {error.strerror or error}"


def url_of(address: Sequence[str | int]) -> str:
    """Return the URL at which a browser on this machine reaches a socket's address.

    >>> url_of(("0.0.0.0", 8000)), url_of(("::1", 8000))
    ('http://127.0.0.1:8000', 'http://[::1]:8000')
    """
    host, port = str(address[0]), address[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def with_allowed_hosts(options: ServeOptions, address: Sequence[str | int]) -> ServeOptions:
    """Return the options with the default for `allowed_hosts`: loopback names only, or every host where that is safe.

    A web page of another site may resolve its own host name to this machine's loopback address; the visitor's browser
    then lets that page read the server's responses (DNS rebinding). An API key, which such a page lacks, also prevents it.
    """
    if options.allowed_hosts or options.api_keys or not _ip(address).is_loopback:
        return options
    return replace(options, allowed_hosts=tuple(dict.fromkeys([options.host, *LOOPBACK_NAMES])))


def announce(name: str, labels: int, address: Sequence[str | int], options: ServeOptions) -> None:
    """Print on standard error what is served and where; warn if the address is public and no key is set."""
    url, place = url_of(address), _ip(address)
    where = f"every address of this machine, such as {url}" if place.is_unspecified else url
    many = "1 label" if labels == 1 else f"{labels:,} labels"
    workers = f" by {options.workers} workers" if options.workers > 1 else ""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # standard error is closed
            sys.stderr.write(
                f"flash: serving {name} ({many}){workers} at {where}; its API is described at {url}/docs; "
                "Ctrl-C stops it\n"
            )
            sys.stderr.flush()
    if not (place.is_loopback or options.api_keys):
        warnings.warn(
            "whoever reaches this address may use the model, as no key is set; type --api_key KEY, or set FLASH_API_KEY",
            UserWarning,
            stacklevel=2,
        )


def _ip(address: Sequence[str | int]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(address[0]).partition("%")[0])
