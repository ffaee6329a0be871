"""`flash text_classification --help`: at once, in 80 columns, and what the parser takes."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from itertools import takewhile
from typing import get_args, get_type_hints

import pytest

from flash.__main__ import main
from flash.cli import help as tables
from flash.cli import options
from flash.cli.choices import as_strategy
from flash.cli.training import SOURCES
from flash.core.finetuning import STRATEGIES, parse_strategy
from flash.text.classification.backbones.encoder.model import EncoderConfig
from flash.text.classification.backbones.encoder.module import TrainingOptions
from flash.text.classification.backbones.linear.model import LinearConfig
from flash.text.classification.losses import LOSSES


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom flash.__main__ import main\nfrom flash.cli.help import SOURCES\n"
        "codes = [main(['text_classification', '--help'])]\n"
        "codes += [main(['text_classification', source, '-h']) for source in SOURCES]\n"
        "heavy = {'torch', 'transformers', 'lightning', 'jsonargparse', 'numpy', 'pyarrow', 'numba'} & set(sys.modules)\n"
        "print(set(codes), heavy)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{0} set()"


@pytest.mark.parametrize("source", ["", *SOURCES])
def test_help_has_80_columns(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["text_classification", *([source] if source else []), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    if source:
        assert len(lines) <= 2 * 24
        assert lines[-1] == f"before {source}; see flash text_classification --help."
        for option in ("--val_split", "--batch_size", "--seed"):
            assert sum(line.startswith(f"  {option} ") for line in lines) == 1


def test_what_a_person_needs_comes_first() -> None:
    first = tables.help_text().splitlines()[:20]
    assert any("flash text_classification from_sample" in line for line in first)
    assert any("from_csv --input_field" in line for line in first)


def test_an_option_takes_at_most_three_lines_and_ends_with_its_default() -> None:
    lines = tables.help_text().splitlines()
    for section in tables.sections():
        starts = [lines.index(line) for line in lines if re.match(rf"  --({names(section)})( |$)", line)]
        assert len(starts) == len(section.options)
        for option, start in zip(section.options, starts, strict=True):
            block = [lines[start], *takewhile(lambda line: line.startswith(" " * 16), lines[start + 1 :])]
            text = " ".join(" ".join(block).split())
            assert text.startswith(f"--{option.name} {option.value}".rstrip())
            assert len(block) <= (5 if option.name == "model.threshold_objective" else 3), text
            if option.default is not None:
                assert text.endswith(
                    f" [{str(option.default).strip('()')}]".replace("True", "true").replace("False", "false")
                )


def names(section: tables.Section) -> str:
    return "|".join(re.escape(option.name) for option in section.options)


def test_each_backbone_has_a_section_of_its_own() -> None:
    linear, encoder = (
        {option.name for option in section.options}
        for title in ("the linear backbone", "an encoder")
        for section in tables.sections()
        if section.title == title
    )
    assert linear == {f"model.{field.name}" for field in fields(LinearConfig)} - {"model.pos_weight"}
    others = ("max_length", "loss_fn", "optimizer", "learning_rate", "lr_scheduler")
    own = [field.name for kind in (EncoderConfig, TrainingOptions) for field in fields(kind)]
    assert encoder == {f"model.{name}" for name in (*own, *others)} - {"model.pos_weight"}


def test_the_command_s_options_are_the_parser_s() -> None:
    parser, _ = options.build_parser(SOURCES)
    defaults = parser.get_defaults()
    shown = [option for section in tables.sections() for option in section.options]
    for option in shown:
        assert f"--{option.name}" in parser._option_string_actions, option.name
        if option.name not in ("help", "print_config"):
            assert defaults[option.name] == option.default, option.name
    models = {name for name in defaults.keys() if name.startswith("model.")}  # noqa: SIM118  a namespace
    assert models == {option.name for option in shown if option.name.startswith("model.")}


@pytest.mark.parametrize("source", list(SOURCES))
def test_a_source_s_options_are_the_parser_s(source: str) -> None:
    assert list(tables.SOURCES) == list(SOURCES)
    parser = options.build_parser(SOURCES)[1][source]
    taken = {action.dest: action for action in parser._actions if action.dest != "help"}
    assert [option.name for option in tables.data_options(source)] == list(taken)
    for option in tables.data_options(source):
        assert option.required is taken[option.name].required
        assert option.default == (None if option.required else taken[option.name].default), option.name


def test_the_strategies_are_those_that_there_are() -> None:
    lines = [line for line in tables.STRATEGIES.splitlines() if re.match(r"  ['a-z]", line)]
    typed = [shlex.split(line)[0] for line in lines]
    typed.append(shlex.split(tables.STRATEGIES.partition("layers; ")[2])[0].rstrip(":"))
    names = []
    for word in typed:
        given = options.parse(SOURCES, ["--strategy", word, "from_sample"])[1]
        names.append(parse_strategy(as_strategy(given.strategy)).name)
    assert set(names) == set(STRATEGIES)
    assert names.count("lora") == 3


def test_the_losses_and_poolings_are_those_that_there_are() -> None:
    texts = {option.name: re.findall(r"\w+", option.words) for option in tables.model_options()}
    assert set(LOSSES) <= set(texts["model.loss_fn"])
    assert set(get_args(get_type_hints(EncoderConfig)["pooling"])) <= set(texts["model.pooling"])


@pytest.mark.parametrize(
    ("words", "source"),
    [
        (["--help"], ""),
        (["-h", "from_csv"], ""),
        (["from_csv", "--input_field", "x", "--help"], "from_csv"),
        (["--output", "m.pt", "from_json", "-h"], "from_json"),
        (["from_csv"], None),
        ([], None),
    ],
)
def test_whose_help_is_asked_for(words: list[str], source: str | None) -> None:
    assert tables.asked_source(words) == source
