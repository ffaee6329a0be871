"""A server in a thread of this process, for a model in memory or loaded here.

`flash serve` uses worker processes instead: see `manager`.
"""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn

from flash.core.errors import FlashError
from flash.text.classification.serve import logs
from flash.text.classification.serve.address import announce, bind, listen, url_of, with_allowed_hosts
from flash.text.classification.serve.api.app import make_app
from flash.text.classification.serve.config import config_of
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.served_model import ServedModel
from flash.text.classification.serve.service import Service

POLL = 0.01  # seconds between checks whether the server has started or ended


def serve(model: ServedModel | str | Path, options: ServeOptions) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code, 0.

    The address is bound first, then the model is loaded, and only then are connections accepted. One worker runs in
    this process. Several workers are processes, as with `flash serve`, and reload the model on SIGHUP; a script that
    starts them calls this under `if __name__ == "__main__":`.

    Args:
        model: a model in memory, or the path of a checkpoint or an export.
        options: address, limits, keys.

    Raises:
        FlashError: an option is invalid, the server cannot listen at the address, or the model cannot be served.
    """
    options.check()
    if options.workers > 1:
        if isinstance(model, ServedModel):
            raise FlashError(
                f"a model in memory has one worker, and workers is {options.workers}; save it with "
                f"trainer.save_checkpoint('model.pt'), and type: flash serve model.pt --workers {options.workers}"
            )
        from flash.text.classification.serve.manager import manage

        logs.configure(options.log_level)
        return manage(model, options)
    with _sigterm_like_ctrl_c(), _started(model, options) as server:
        service = server.service
        try:
            announce(service.model.name, len(service.model.labels), server.address, service.options)
            server.wait()
        except KeyboardInterrupt:
            """Leaving the block stops the server."""
    if service.dead:
        raise FlashError("the thread of the model has ended, and the log says why; start the server again")
    return 0


@contextmanager
def running(model: ServedModel | str | Path, options: ServeOptions | None = None) -> Iterator[str]:
    """Serve in a thread while the block runs, for tests and notebooks; yields the URL, such as "http://127.0.0.1:41234".

    Args:
        model: a model in memory, or the path of a checkpoint or an export.
        options: the default is any free port, logging errors only.

    Raises:
        FlashError: as `serve`; also for more than one worker.
    """
    options = options or ServeOptions(port=0, log_level="error")
    options.check()
    if options.workers > 1:
        raise FlashError(f"workers is {options.workers}; in a thread there is one, so leave it out")
    with _started(model, options) as server:
        yield url_of(server.address)


class _Running:
    """A server in a thread.

    Args:
        service: the state that the endpoints share.
        sock: the listening socket; the server closes it.

    Attributes:
        address: the socket's address.
    """

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self.service, self.address = service, sock.getsockname()
        self._server = uvicorn.Server(config_of(make_app(service), service.options))
        self._sock, self._over = sock, False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="flash-serve")

    def _run(self) -> None:
        try:
            self._server.run([self._sock])
        except BaseException as error:
            self._error = error
        self._over = True

    def start(self) -> None:
        """Start the thread, and wait until the server answers."""
        self.service.ended = self.stop
        self._thread.start()
        while not (self._server.started or self._over):
            time.sleep(POLL)

    def wait(self) -> None:
        """Wait for the end by sleeping: Ctrl-C in a lock's wait could leave the lock held for ever."""
        while not self._over:
            time.sleep(POLL)

    def stop(self) -> None:
        """Ask the server to stop after the requests in flight."""
        self._server.should_exit = True

    def end(self) -> None:
        """Stop the server and wait for its end; Ctrl-C while waiting ends it at once.

        Raises:
            BaseException: the error that ended its thread.
        """
        self.stop()
        while not self._over:
            try:
                self.wait()
            except KeyboardInterrupt:
                self._server.force_exit = True
        self._thread.join()
        if self._error is not None:
            raise self._error


@contextmanager
def _started(model: ServedModel | str | Path, options: ServeOptions) -> Iterator[_Running]:
    """Run a server in a thread while the block runs."""
    logs.configure(options.log_level)
    if not isinstance(model, ServedModel) and not Path(model).exists():
        ServedModel.load(model, options)  # raises: report the missing file before a problem of the address
    with closing(bind(options.host, options.port)) as sock:
        options = with_allowed_hosts(options, sock.getsockname())
        served = model if isinstance(model, ServedModel) else ServedModel.load(model, options)
        listen(sock, options.host)
        server = _Running(Service(served, options), sock)
        try:
            server.start()
            yield server
        finally:
            server.end()


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Turn SIGTERM into `KeyboardInterrupt` in this block; no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
