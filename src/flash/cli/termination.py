"""End a command within about a second of SIGTERM, without half-written files.

Python runs a signal handler between two bytecode instructions of the main thread. A compiled loop may delay the next
instruction for minutes; then a watcher thread ends the process. Imports the standard library and
`core.temporary` alone.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType

from flash.core.temporary import remove_own

TERMINATED = 143
"""The shell's exit code for SIGTERM."""
SENTENCE = "Terminated; no half-written file is left behind"
GRACE = 1.0  # seconds that the main thread has to notice the signal


class Terminated(SystemExit):
    """The process received SIGTERM."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the block on SIGTERM; end the process if the block does not stop in time.

    Does nothing outside the main thread, or if SIGTERM already has a handler.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or os.name == "nt" or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    noticed = threading.Event()

    def notice(number: int, frame: FrameType | None) -> None:
        noticed.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second SIGTERM ends it at once
        raise Terminated

    read, write = os.pipe()
    os.set_blocking(write, False)
    _forget_in_children()
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, notice)
    threading.Thread(target=_watch, args=(read, noticed), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(before)
        os.close(write)  # this ends the watcher thread


def end_now() -> None:
    """Exit with `TERMINATED`, even while threads of a fit are running."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(TERMINATED)


def _watch(read: int, noticed: threading.Event) -> None:
    with os.fdopen(read, "rb", buffering=0) as signals:
        while numbers := signals.read(64):
            if signal.SIGTERM in numbers and not noticed.wait(GRACE):
                remove_own()
                with suppress(OSError, ValueError):
                    sys.stderr.write(f"{SENTENCE}\n")
                end_now()


@cache
def _forget_in_children() -> None:
    """Keep the signals of forked children from waking this process's thread."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
