"""The command `flash`: run a verb, and report errors that the user can fix in one sentence.

Imports only the standard library, errors and wording; each verb is imported when it is called.
"""

import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TextIO

from flash import __version__
from flash.cli.termination import SENTENCE, TERMINATED, Terminated, end_now, ended_by_sigterm
from flash.cli.wording import as_options
from flash.core.errors import FlashError, unknown_name, visible
from flash.core.installed import other_owners, owners_sentence
from flash.core.launch import local_rank, rank

VERBS = {
    "text_classification": (
        "flash.cli.text_classification",
        "train on a file of texts, print how good it is, save the model",
    ),
    "predict": ("flash.cli.predict", "label every text of a file of any size, or of a pipe"),
    "evaluate": ("flash.cli.evaluate", "print how good a model is on a file with targets"),
    "export": ("flash.cli.export", "write a trained encoder as a folder that needs no torch"),
    "serve": ("flash.cli.serve", "answer over HTTP, with a web page"),
}
"""For each verb, the module whose `run(argv)` implements it, and a one-line description."""

HELP = """\
flash: multi-label text classification, from a file of texts to labels.

  Start here, no file and no network needed (synthetic comments):
    flash text_classification from_sample
    printf 'text\\n"You are wonderful"\\n' | flash predict text_classification_model.pt --input -

  Your own file:
    flash text_classification from_csv --input_field comment_text --target_fields toxic obscene \\
        --train_file train.csv --val_split 0.1
    flash predict text_classification_model.pt --input comments.csv --input_field comment_text \\
        --output predictions.csv
    flash evaluate text_classification_model.pt test.csv
    flash export encoder_model.pt --quantize int8
    flash serve text_classification_model.pt
    curl http://127.0.0.1:8000/v1/classify -d '{{"texts": ["You are wonderful"]}}'

  Verbs (each has --help):
{verbs}

  --debug shows the traceback of an error; --version the version.
  Exit codes: 0 done, 2 an input error, 130 Ctrl-C, 143 SIGTERM, 141 the reader of a pipe closed it.
"""

MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # the last two are the shell's for SIGINT and SIGPIPE


_shown: set[str] = set()  # warnings already printed by this command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code.

    Args:
        argv: the words after `flash`; None for those of the process.
    """
    _open_closed_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        # a process of our own: disable onnxruntime's telemetry in it and its children
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    debug = "--debug" in words
    _shown.clear()
    words = [word for word in words if word != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a label that the terminal cannot encode must not fail
    try:
        serving = words[:1] == ["serve"]  # the server finishes open requests first
        with warnings.catch_warnings(), nullcontext() if serving else ended_by_sigterm():
            warnings.showwarning = _show_warning
            code = _run(words)
        sys.stdout.flush()  # here, where a broken pipe is still handled
        return code
    except BrokenPipeError:
        # The interpreter flushes standard output again at exit, which must not fail either.
        with suppress(OSError, ValueError):  # standard output without a file descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _report("Interrupted; no half-written file is left behind", INTERRUPTED, debug)
    except Terminated:
        _report(SENTENCE, TERMINATED, debug)
        end_now()
        return TERMINATED
    except FlashError as error:
        return _report(f"flash: error: {as_options(str(error))}", MISTAKE, debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _report(f"flash: error: {where}{error.strerror or error}", MISTAKE, debug)
    except Exception as error:
        # Lightning's error for invalid trainer options; importing it here would take seconds.
        if type(error).__name__ != "MisconfigurationException":
            raise
        first = str(error).strip().partition("\n")[0] or "the trainer's options do not fit together"
        return _report(f"flash: error: {first.rstrip('.')}", MISTAKE, debug)


def _open_closed_streams() -> None:
    """Replace closed standard streams by the null device; otherwise the next file would get their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        verbs = "\n".join(f"    {verb:{width}}  {line}" for verb, (_, line) in VERBS.items())
        sys.stdout.write(HELP.format(verbs=verbs))
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"flash {__version__}\n")
        if others := other_owners(thorough=True):
            sys.stderr.write(f"flash: warning: {owners_sentence(others)}\n")
        return 0
    if words[0] not in VERBS:
        raise FlashError(f"{unknown_name('verb', words[0], VERBS)}; see flash --help")
    code: int = import_module(VERBS[words[0]][0]).run(words[1:])
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print each warning once, without its location in the code."""
    sentence = f"flash: warning: {visible(as_options(str(message)))}\n"
    if rank() == 0 and sentence not in _shown:
        _shown.add(sentence)
        (file or sys.stderr).write(sentence)


def _report(sentence: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    if local_rank() == 0:  # the other processes of a launch report the same error
        sys.stderr.write(visible(sentence) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
