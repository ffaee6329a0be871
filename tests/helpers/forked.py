"""Runs programs in processes that are forked from one that has imported torch and Lightning already.

A start of `flash text_classification`, or of a script, spends some ten seconds of a processor on imports, which most
tests do not look at. Tests of the start itself, and the matrix of models and commands, start fresh processes.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

if sys.platform == "win32":  # every process starts anew
    _CONTEXT = multiprocessing.get_context("spawn")
else:
    _CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "flash.cli.training",
        "flash.training.trainer",
        "flash.text.classification.model",
        "transformers.models.bert.modeling_bert",
    ]
)
STREAMS = ("stdin", "stdout", "stderr")


class Forked:
    """A program that runs, or has run.

    Args:
        words: a command line of `flash`; where the first word ends with `.py`, of that script.
        folder: where it runs; its standard streams are files in `streams`, the input an empty one unless it is there.
        environment: variables beside those of the test.
    """

    def __init__(
        self, *words: str | Path, folder: Path, streams: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.words, self.streams = [str(word) for word in words], streams
        variables = {**os.environ, **(environment or {})}
        self.process = _CONTEXT.Process(
            target=_become, args=(self.words, str(folder), str(streams), variables), daemon=False
        )
        self.process.start()

    def wait(self, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        """What it has written, and its exit code, when it has ended.

        Raises:
            AssertionError: it runs for longer than `timeout` seconds.
        """
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
        assert code is not None, f"{self.words} runs for more than {timeout} seconds"
        return subprocess.CompletedProcess(self.words, code, self.written("stdout"), self.written("stderr"))

    def written(self, stream: str) -> str:
        """What it has written so far on standard output or standard error."""
        path = self.streams / stream
        return path.read_text() if path.exists() else ""


def _become(words: list[str], folder: str, streams: str, environment: dict[str, str]) -> None:
    """Be the program, in the forked process."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # nohup and a script's & hand on that it is ignored
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(STREAMS):
        handle = os.open(f"{streams}/{name}", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = os.fdopen(0, closefd=False)
    if words[0].endswith(".py"):
        sys.argv, sys.path[:0] = words, [folder]
        runpy.run_path(words[0], run_name="__main__")
        return
    sys.argv = [str(Path(sys.executable).with_name("flash")), *words]
    from flash.__main__ import main

    sys.exit(main())
