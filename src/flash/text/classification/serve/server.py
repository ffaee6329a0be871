"""One worker of the server: a model at an address, in an event loop of its own, until a stop that cuts nobody off."""

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TypeAlias, cast

import uvicorn

from flash.core.errors import FlashError
from flash.text.classification.serve import logs
from flash.text.classification.serve.app import make_app
from flash.text.classification.serve.connection import Connection, connection_class
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.served_model import ServedModel
from flash.text.classification.serve.service import Service

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
ON_ITS_WAY = 0.05  # seconds for requests that were sent before the server stopped to listen
LAST_WORDS = 1.0  # seconds for "the server is being stopped", to requests that are cut
LAST_BATCH = 5.0  # seconds for the batch at hand when the server stops
OTHER_FILES = 256  # that a process has open beside its connections
REPEATED = 10.0  # seconds between lines of the log on connections above the limit

Load: TypeAlias = Callable[[str | Path, ServeOptions], ServedModel]


def serve(model: ServedModel | str | Path, options: ServeOptions, *, load: Load = ServedModel.load) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code.

    The address is taken first, then the model is loaded, and only then does anybody get through. SIGTERM or SIGINT
    stops: what is in flight is answered within `options.grace` seconds, and a second SIGINT ends at once. SIGHUP loads
    the model's file again; while it loads, and if it is bad, the old one answers. Outside the main thread signals are
    not ours to handle.

    Args:
        model: in memory, or the path of a checkpoint or an export.
        options: addresses, limits, keys.
        load: makes a model of a path.

    Raises:
        FlashError: an option that cannot be, an address that cannot be listened at, or a model that cannot be served.
    """
    options.check()
    logs.configure(options.log_level)
    if options.workers > 1:
        from flash.text.classification.serve.workers import supervise

        return supervise(model, options, load)
    if not isinstance(model, ServedModel) and not Path(model).exists():
        load(model, options)  # says so; the address is not the first thing that is wrong
    with closing(bind(options.host, options.port)) as sock:
        served = model if isinstance(model, ServedModel) else load(model, options)
        server = Server(served, options, sock)
        address = sock.getsockname()
        return _run(server, lambda: announce(served.name, len(served.labels), address, options))


@contextmanager
def running(model: ServedModel | str | Path, options: ServeOptions | None = None) -> Iterator[str]:
    """Serve in a thread while the block runs, for tests and notebooks; gives the URL, such as "http://127.0.0.1:41234".

    Args:
        model: in memory, or the path of a checkpoint or an export.
        options: at any free port, and silent, unless given.

    Raises:
        FlashError: as `serve`; several workers are not for a thread.
    """
    options = options or ServeOptions(port=0, log_level="error")
    options.check()
    if options.workers > 1:
        raise FlashError(f"workers is {options.workers}; in a thread there is one, so leave it out")
    logs.configure(options.log_level)
    with closing(bind(options.host, options.port)) as sock:
        server = Server(
            model if isinstance(model, ServedModel) else ServedModel.load(model, options), options, sock
        )
        url = url_of(sock.getsockname())
        begun = threading.Event()
        with ThreadPoolExecutor(1, "flash-serve") as pool:
            done = pool.submit(server.run, begun.set)
            done.add_done_callback(lambda future: begun.set())
            begun.wait()
            try:
                if not done.done():
                    yield url
            finally:
                server.stop()
            done.result()


class Server:
    """A model behind a socket.

    Args:
        model: that answers first.
        options: limits, keys.
        sock: bound; closed when the server stops.

    Attributes:
        service: what the endpoints share.
    """

    def __init__(self, model: ServedModel, options: ServeOptions, sock: socket.socket) -> None:
        self.options, self._sock = options, sock
        self.service = Service(model, options)
        self._web = _Web(
            uvicorn.Config(
                make_app(self.service),
                host=options.host,
                http=connection_class(options, self._refused),
                ws="none",
                loop="none",
                lifespan="off",
                interface="asgi3",
                workers=1,  # uvicorn's would come from an environment variable
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=options.keep_alive,  # type: ignore[arg-type]  # a part of a second is fine
            ),
            self._end,
        )
        self.service.connections = lambda: len(self._web.server_state.connections)
        self._reloading: set[asyncio.Task[None]] = set()
        self._closed = False
        self._told = -REPEATED
        self._turned_away = 0

    def run(self, begun: Callable[[], object], signals: Sequence[str] = SIGNALS) -> int:
        """Answer until it is stopped; returns the exit code, 0.

        Args:
            begun: called in the event loop as soon as somebody can get through.
            signals: the names of those that are handled, if this is the main thread.

        Raises:
            FlashError: the address was taken by another program in the meantime.
        """
        _allow_files(self.options.max_connections + OTHER_FILES)
        self._web.begun = begun
        loop = _new_loop()
        try:
            loop.run_until_complete(self._main(signals))
        finally:
            loop.close()
        return 0

    def stop(self, *, at_once: bool = False) -> None:
        """Stop, from any thread: after what is in flight, or at once."""
        self.service.ready = False
        self._web.should_exit = True
        self._web.force_exit |= at_once

    def interrupt(self) -> None:
        """What Ctrl-C does: stop; at once if that was asked for already."""
        self.stop(at_once=self._web.should_exit)

    def hang_up(self) -> None:
        """What SIGHUP does: load the model again, in the running event loop."""
        task = asyncio.ensure_future(self._reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reload(self) -> None:
        try:
            await self.service.reload()
        except FlashError as error:  # the service has said so where there was a file
            if self.service.model.path is None:
                logs.event(logging.ERROR, "reload refused", reason=str(error))
        except Exception as error:
            logs.event(logging.ERROR, "reload failed", error=error)

    async def _main(self, signals: Sequence[str]) -> None:
        self.service.start()
        try:
            with self._handled(signals):
                await self._web.serve(sockets=[self._sock])
        finally:
            await self._close()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            logs.requests.flush()  # of those that were cut

    @contextmanager
    def _handled(self, names: Sequence[str]) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        actions = {"SIGINT": self.interrupt, "SIGTERM": self.stop, "SIGHUP": self.hang_up}
        before = {}
        for name in names:
            number = getattr(signal, name, None)
            if number is None:
                continue
            before[number] = signal.getsignal(number)
            action = actions[name]
            try:
                loop.add_signal_handler(number, action)
            except NotImplementedError:  # on Windows
                signal.signal(number, lambda _, __, action=action: loop.call_soon_threadsafe(action))  # type: ignore[misc]
        try:
            yield
        finally:
            for number, handler in before.items():
                with suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
                signal.signal(number, handler or signal.SIG_DFL)

    async def _end(self) -> None:
        """Answer what is in flight; nobody comes in any more."""
        state = self._web.server_state
        await asyncio.sleep(ON_ITS_WAY)
        for connection in self._connections():
            connection.shutdown()
        if not await self._until_empty(self.options.grace):
            cut = len(state.connections)
            await self._close()  # what waits for the model is told so, and what is still arriving
            for connection in self._connections():
                connection.give_up()
            await self._until_empty(LAST_WORDS, forced=True)
            logs.event(logging.WARNING, "stopped before all was answered", cut=cut)
        for connection in self._connections():
            connection.cut()
        await asyncio.sleep(0.01)
        for task in state.tasks:
            task.cancel()

    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self._web.server_state.connections))

    async def _until_empty(self, seconds: float, *, forced: bool = False) -> bool:
        """Wait until nothing is in flight; whether that came within the time, and before a second Ctrl-C."""
        state, end = self._web.server_state, monotonic() + seconds
        while state.connections or state.tasks:
            if monotonic() >= end or (self._web.force_exit and not forced):
                return False
            await asyncio.sleep(0.01)
        return True

    async def _close(self) -> None:
        """Close the service, once; the batch at hand may end."""
        if self._closed:
            return
        self._closed = True
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.service.close(), 0.1 if self._web.force_exit else LAST_BATCH)

    def _refused(self, status: int, message: str) -> None:
        """Count and log an answer that never reached the application."""
        if status != 503:
            self.service.metrics.request("other", "other", status, 0.0)
            logs.event(logging.INFO, "request refused", status=status, reason=message)
            return
        self.service.metrics.refused_connection()
        self._turned_away += 1
        if monotonic() - self._told >= REPEATED:  # a flood of connections is no flood of lines
            logs.event(logging.WARNING, "connections refused", count=self._turned_away, reason=message)
            self._told, self._turned_away = monotonic(), 0


class _Web(uvicorn.Server):
    """uvicorn's server, with our signals, and our way to stop."""

    def __init__(self, config: uvicorn.Config, end: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self.begun: Callable[[], object] = lambda: None
        self._end = end

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn would raise the signal once more at the end, and the exit code would not be 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell so.

        Raises:
            FlashError: another program has begun to listen there since the address was taken.
        """
        for sock in sockets or ():
            try:
                sock.listen(self.config.backlog)  # uvloop would not say that it could not
            except OSError as error:
                raise FlashError(_no_address(self.config.host, sock.getsockname()[1], error)) from error
        await super().startup(sockets)
        self.begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, then answer what is in flight."""
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        await self._end()


def _run(server: Server, begun: Callable[[], object]) -> int:
    """Run a server in this thread, or beside the event loop of a notebook that runs in it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return server.run(begun)
    outcome: Future[int] = Future()

    def work() -> None:
        try:
            outcome.set_result(server.run(begun))
        except BaseException as error:
            outcome.set_exception(error)

    thread, started = threading.Thread(target=work, name="flash-serve"), False
    while True:
        try:
            if not started:
                started = True
                thread.start()
            return outcome.result()
        except KeyboardInterrupt:
            server.interrupt()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # it has no version for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


# ---- addresses ----------------------------------------------------------------------------------------------


def bind(host: str, port: int) -> socket.socket:
    """A socket of an address, at which nobody listens yet.

    Args:
        host: an address or a name of this machine.
        port: 0 for any that is free.

    Raises:
        FlashError: the address is taken, forbidden, unknown or another machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise FlashError(
            f"the host {host!r} is not known; expected an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 "
            "for every network that it is in"
        ) from error
    # where a name has several addresses, as localhost has, the one that every client tries
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
    """Where a browser on this machine finds a socket's address, such as ("0.0.0.0", 8000).

    >>> url_of(("0.0.0.0", 8000)), url_of(("::1", 8000))
    ('http://127.0.0.1:8000', 'http://[::1]:8000')
    """
    host, port = str(address[0]), address[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(name: str, labels: int, address: Sequence[str | int], options: ServeOptions) -> None:
    """Tell on standard error what is served and where, and warn if anybody may come."""
    url, place = url_of(address), ipaddress.ip_address(str(address[0]).partition("%")[0])
    where = f"every address of this machine, such as {url}" if place.is_unspecified else url
    many = "1 label" if labels == 1 else f"{labels:,} labels"
    workers = f" by {options.workers} workers" if options.workers > 1 else ""
    sys.stderr.write(
        f"flash: serving {name} ({many}){workers} at {where}; its API is described at {url}/docs; Ctrl-C stops it\n"
    )
    sys.stderr.flush()
    if not (place.is_loopback or options.api_keys):
        warnings.warn(
            "whoever reaches this address may use the model, as no key is set; type --api_key KEY, or set FLASH_API_KEY",
            UserWarning,
            stacklevel=2,
        )


def _allow_files(count: int) -> None:
    """Let this process open as many files as it may need, where the system asks to be told."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < count:
        logs.event(logging.WARNING, "few files may be open", allowed=most, wanted=count)
