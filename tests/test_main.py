import errno
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import flash
from flash.__main__ import HELP, VERBS, main
from flash.core.errors import CheckpointError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Puts a function in the place of the verb `predict`."""

    def put(run: Callable[[list[str]], int]) -> None:
        module = ModuleType("flash.cli.predict")
        module.__dict__["run"] = run
        monkeypatch.setitem(sys.modules, "flash.cli.predict", module)

    return put


def fail(error: BaseException) -> Callable[[list[str]], int]:
    def run(argv: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_says_what_to_type_first(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100
    assert lines.index("    flash text_classification from_sample") < 5
    for verb, (_, line) in VERBS.items():
        assert f"flash {verb} " in out
        assert line in out


def test_help_and_version_import_nothing_heavy() -> None:
    program = (
        "import sys; from flash.__main__ import main\n"
        "codes = [main(['--help']), main(['--version']), main(['x'])]\n"
        "heavy = {'torch', 'lightning', 'numpy', 'pyarrow', 'numba', 'tqdm'} & set(sys.modules)\n"
        "print(codes, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2] []"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"flash {flash.__version__}\n"


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predcit"]) == 2
    assert capsys.readouterr().err == (
        "flash: error: unknown verb 'predcit'; did you mean 'predict'? Known: text_classification, predict, "
        "evaluate, export, serve; see flash --help\n"
    )


def test_words_and_code_pass_through(verb: Callable[..., None]) -> None:
    seen: list[list[str]] = []
    verb(lambda argv: seen.append(argv) or 7)  # type: ignore[func-returns-value]
    assert main(["predict", "--debug", "a", "--b"]) == 7
    assert seen == [["a", "--b"]]


def test_a_mistake_is_one_sentence_and_2(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(fail(CheckpointError("m.pt is\ntruncated; save it again")))
    assert main(["predict"]) == 2
    assert capsys.readouterr().err == "flash: error: m.pt is\\ntruncated; save it again\n"
    assert main(["predict", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith("flash: error: m.pt is\\ntruncated; save it again\n")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "a.csv"),
            "flash: error: a.csv: Permission denied\n",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "data"), "flash: error: data: Is a directory\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "flash: error: No space left on device\n"),
        (OSError("something odd"), "flash: error: something odd\n"),
    ],
)
def test_what_the_system_refuses_is_one_sentence_and_2(
    verb: Callable[..., None], error: OSError, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(fail(error))
    assert main(["predict"]) == 2
    assert capsys.readouterr().err == sentence


def test_interrupt_is_one_sentence_and_130(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(fail(KeyboardInterrupt()))
    assert main(["predict"]) == 130
    assert capsys.readouterr().err == "Interrupted; no half-written file is left behind\n"


def test_broken_pipe_is_silent_and_141(verb: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    verb(fail(BrokenPipeError()))
    assert main(["predict"]) == 141
    assert capfd.readouterr() == ("", "")


class MisconfigurationException(Exception):  # noqa: N818  (Lightning's own name)
    pass


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("`accelerator='gpu'` is not there.\nTry another.\n", "`accelerator='gpu'` is not there"),
        ("", "the trainer's options do not fit together"),
    ],
)
def test_lightning_s_word_for_wrong_options_is_one_sentence_and_2(
    verb: Callable[..., None], message: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(fail(MisconfigurationException(message)))
    assert main(["predict"]) == 2
    assert capsys.readouterr().err == f"flash: error: {sentence}\n"


def test_a_real_mistake_in_the_trainer_s_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--trainer.accelerator", "cpu", "--trainer.val_check_interval", "1.5"]
    assert main(["text_classification", *words, "from_sample", "--rows", "1000"]) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [
        line for line in lines if not line.startswith("flash: loading ")
    ]  # of the process's first training
    assert len(errors) == 1
    assert errors[0].startswith("flash: error: ")
    assert "val_check_interval" in errors[0]


def test_keywords_are_shown_as_options(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def run(argv: list[str]) -> int:
        warnings.simplefilter("always")
        warnings.warn("left out, as unknown_labels='ignore' asks", UserWarning, stacklevel=1)
        raise CheckpointError("a.csv is not UTF-8; pass encoding='cp1252'")

    verb(run)
    assert main(["predict"]) == 2
    assert capsys.readouterr().err == (
        "flash: warning: left out, as --unknown_labels ignore asks\n"
        "flash: error: a.csv is not UTF-8; type --encoding cp1252\n"
    )


@pytest.mark.parametrize("error", [TypeError("a bug"), MemoryError(), SystemExit(3)])
def test_everything_else_passes_through(verb: Callable[..., None], error: BaseException) -> None:
    verb(fail(error))
    with pytest.raises(type(error)):
        main(["predict"])


def test_warnings_are_sentences(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.showwarning

    def run(argv: list[str]) -> int:
        warnings.simplefilter("always")
        warnings.warn("3 rows have an unknown label", UserWarning, stacklevel=1)
        return 0

    verb(run)
    assert main(["predict"]) == 0
    assert capsys.readouterr().err == "flash: warning: 3 rows have an unknown label\n"
    assert warnings.showwarning is before


@pytest.mark.parametrize("verb_name", VERBS)
def test_each_verb_has_a_module_with_run(verb_name: str) -> None:
    assert callable(import_module(VERBS[verb_name][0]).run)
    assert "{verbs}" in HELP
