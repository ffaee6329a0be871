"""SIGTERM ends a command soon, whatever its main thread does."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flash.cli.termination import SENTENCE, TERMINATED, ended_by_sigterm

STUCK = """
import hashlib, threading
from flash.cli.termination import ended_by_sigterm
from flash.core.files import atomic_file, atomic_folder
from pathlib import Path

with ended_by_sigterm(), atomic_file("file") as file, atomic_folder(Path("folder")) as folder:
    file.write(b"half")
    threading.Timer(0.5, lambda: print("ready", flush=True)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes without a step of Python's
"""
CHILD = """
import os, signal, time
from flash.cli.termination import ended_by_sigterm

with ended_by_sigterm():
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        time.sleep(60)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    time.sleep(1.5)  # longer than the grace
    print("the parent lives, the child ended with", code)
"""


def test_a_main_thread_that_does_not_notice_is_ended_and_its_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "earlier").touch()
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == TERMINATED
    assert errors == f"{SENTENCE}\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "earlier"]


def test_the_signal_of_a_forked_child_is_not_ours() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout == "the parent lives, the child ended with 7\n"


def test_everything_is_as_before_behind_the_block() -> None:
    before = threading.active_count()
    with ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert threading.active_count() == before + 1
        with ended_by_sigterm():  # of a command that calls another
            assert threading.active_count() == before + 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_a_meaning_that_the_signal_has_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ended_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
