"""The documentation's code runs as it stands there, and the site is built without a warning.

A block of `sh` or `python` runs in the order of its page, in a folder with a small model and small files; one after a
comment `<!-- not run: why -->` is only parsed. The pages of `docs/serving` have tests of their own (`test_deployment.py`).
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.csv
import pytest

from flash.__main__ import VERBS, main
from flash.cli import text_classification
from flash.cli.serve import build_parser
from flash.text.classification.sample import LABELS, sample_table
from flash.text.classification.serve import running
from flash.text.classification.serve.api.endpoints import ENDPOINTS

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
RUN = [name for name in PAGES if not name.startswith(("serving/", "decisions/"))]
SERVER = "http://127.0.0.1:8000"
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A block of code, and why it is not run, if so."""

    why: str | None
    language: str
    code: str


def blocks(path: Path) -> list[Block]:
    found = BLOCK.finditer(path.read_text(encoding="utf-8"))
    return [Block(*one.group("why", "language", "code")) for one in found]


WITH_CODE = [name for name in RUN if any(block.language in ("sh", "python") for block in blocks(DOCS / name))]


def commands(code: str) -> list[list[str]]:
    """The words of each line; a backslash at the end of a line goes on."""
    return [shlex.split(line) for line in code.replace("\\\n", " ").splitlines() if line]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name: comments, a model of them, and a tiny encoder."""
    folder = tmp_path_factory.mktemp("docs")
    data = folder / "data" / "jigsaw_toxic_comments"
    data.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, name in enumerate(("train.csv", "test.csv", "comments.csv")):
            pyarrow.csv.write_csv(sample_table(300, seed=seed), name)
        shutil.copy("train.csv", data)
        _write_masked(folder / "train_masked.csv")
        _write_fasttext(folder / "train.txt", seed=0)
        _write_fasttext(folder / "test.txt", seed=1)
        _make_encoder(folder / "encoder")
        words = ["--input_field", "comment_text", "--target_fields", *LABELS, "--train_file", "train.csv"]
        assert main(["text_classification", "from_csv", *words]) == 0
        shutil.copy("text_classification_model.pt", "text_classification_multi_label_model.pt")
    return folder


def _write_masked(path: Path) -> None:
    table = sample_table(300)
    threat = [None if row % 5 == 0 else value for row, value in enumerate(table["threat"].to_pylist())]
    index = table.schema.get_field_index("threat")
    pyarrow.csv.write_csv(table.set_column(index, "threat", pa.array(threat, pa.int8())), path)


def _write_fasttext(path: Path, seed: int) -> None:
    rows = sample_table(300, seed=seed).to_pylist()
    lines = [
        " ".join([*(f"__label__{name}" for name in LABELS if row[name]), row["comment_text"]]) for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _make_encoder(folder: Path) -> None:
    import tokenizers
    import torch
    import transformers

    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    words = [*special, "you", "are", "a", "the", "I", "zebra", "banana"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(special)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(
        vocab_size=len(words), pad_token_id=1, max_position_embeddings=140, **shape
    )
    transformers.BertModel(config).save_pretrained(folder)


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these files, which is the working folder."""
    shutil.copytree(prepared, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def url(prepared: Path) -> Iterator[str]:
    """A server of the small model."""
    with running(prepared / "text_classification_model.pt") as address:
        yield address


def run_command(words: list[str], url: str) -> None:
    """A command of a page: in this process; `flash serve` is parsed alone, since a server runs already."""
    if words[0] == "curl":
        request = Request(words[1].replace(SERVER, url), words[words.index("-d") + 1].encode())
        with urlopen(request, timeout=60) as answer:
            assert set(json.load(answer)["results"][0]) == {"labels", "scores"}
    elif words[:2] == ["flash", "serve"]:
        assert Path(build_parser().parse(words[2:]).model).is_file()
    else:
        assert words[0] == "flash", words
        assert main(words[1:]) == 0, words


@pytest.mark.parametrize("name", WITH_CODE)
@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # small random data; what is said of them is tested elsewhere
def test_the_code_of_a_page_runs(name: str, folder: Path, url: str) -> None:
    names: dict[str, Any] = {}
    for block in blocks(DOCS / name):
        if block.language == "sh":
            for words in commands(block.code):
                if block.why is None:
                    run_command(words, url)
        elif block.language == "python":
            code = compile(block.code, name, "exec")
            if block.why is None:
                exec(code, names)
    for variable in ("labels", "after", "before"):  # what the pages call their answers
        assert names.get(variable) != []


def test_the_question_of_the_readme_is_answered(url: str) -> None:
    [[words]] = [commands(block.code) for block in blocks(README) if block.code.startswith("curl")]
    run_command(words, url)


@pytest.mark.parametrize("name", PAGES)
def test_python_code_can_be_parsed(name: str) -> None:
    for block in blocks(DOCS / name):
        if block.language == "python":
            ast.parse(block.code)


def test_every_verb_and_source_is_documented() -> None:
    text = "".join((DOCS / name).read_text(encoding="utf-8") for name in RUN)
    for verb in VERBS:
        assert f"flash {verb}" in text
    for source in text_classification.SOURCES:
        assert f"`{source}`" in text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors; or the one at `FLASH_TEST_SITE`, which was built so."""
    if "FLASH_TEST_SITE" in os.environ:
        return Path(os.environ["FLASH_TEST_SITE"])
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    places = map(str, ["-d", folder / "doctrees", DOCS, folder / "html"])
    done = subprocess.run([*command, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_the_site_has_every_page_and_reads_nothing_from_the_network(site: Path) -> None:
    for name in PAGES:
        page = (site / name).with_suffix(".html").read_text(encoding="utf-8")
        assert not re.search(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?https?:""", page)


def test_the_site_has_the_reference_of_the_code(site: Path) -> None:
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in ("flash.Trainer", "flash.text.TextClassifier", "flash.text.classification.Predictor.predict"):
        assert f'id="{name}"' in python
    assert 'id="flash.text.TextClassificationData.from_csv"' in python
    lines = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    assert all(f"usage: flash {verb}" in re.sub("<[^>]+>", "", lines) for verb in VERBS)
    http = (site / "reference" / "http.html").read_text(encoding="utf-8")
    assert all(f"{endpoint.method} {endpoint.path}" in re.sub("<[^>]+>", "", http) for endpoint in ENDPOINTS)


def test_llms_txt_lists_pages_of_the_site(site: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert all((site / link).is_file() for link in links)
    listed = {link.replace(".html", ".md") for link in links}
    own = {name for name in RUN if name.startswith(("how-to/", "reference/", "explanation/"))}
    assert own - listed == {
        "how-to/index.md",
        "reference/index.md",
        "explanation/index.md",
        "explanation/differences-from-lightning-flash.md",
    }


def test_links_between_pages_lead_somewhere() -> None:
    for name in RUN:
        text = (DOCS / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert "://" in link or (DOCS / name).parent.joinpath(link).exists(), (name, link)
