"""The page's files without a browser: nothing from elsewhere, nothing inline, every name they use exists."""

import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from flash.text.classification.predictor import Predictor

FOLDER = resources.files("flash.text.classification.serve") / "page"
FILES = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir() if file.is_file()}
PAGES = ["index.html", "docs.html"]
SCRIPTS = sorted(name for name in FILES if name.endswith(".js"))
STYLES = sorted(name for name in FILES if name.endswith(".css"))
LABELLED = ("input", "select", "textarea")


class Elements(HTMLParser):
    """The elements of a page in order: (name, attributes, the text directly in it)."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_data(self, data: str) -> None:
        if self.all and data.strip():
            self.all[-1][2].append(data)


def elements(page: str) -> list[tuple[str, dict[str, str], list[str]]]:
    return Elements(FILES[page]).all


def ids(page: str) -> list[str]:
    return [attributes["id"] for _, attributes, _ in elements(page) if "id" in attributes]


def scripts_of(page: str) -> set[str]:
    """The scripts that a page loads, and those that these import."""
    found = set(re.findall(r'src="static/([\w.]+)"', FILES[page]))
    while more := {name for one in found for name in re.findall(r'from "\./([\w.]+)"', FILES[one])} - found:
        found |= more
    return found


def test_the_folder_has_files_that_a_server_gives_only() -> None:
    assert max(len(content.splitlines()) for content in FILES.values()) < 500
    assert set(PAGES) <= set(FILES)
    assert {name.rpartition(".")[2] for name in FILES} == {"html", "css", "js", "svg"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_taken_from_elsewhere(name: str) -> None:
    content = FILES[name].replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|\bwss?:|@import|\burl\(", content)
    assert not re.search(r"""(?:src|href)=["']?(?://|/)""", content)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_refers_to_is_there(page: str) -> None:
    served = {"./", "docs", "info", "metrics", "openapi.json"}
    for _, attributes, _ in elements(page):
        for name in ("src", "href"):
            target = attributes.get(name)
            if target is None or target in served:
                continue
            if target.startswith("#"):
                assert target[1:] in ids(page)
            else:
                folder, _, file = target.partition("/")
                assert (folder, file in FILES) == ("static", True), target


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_inline(page: str) -> None:
    for tag, attributes, text in elements(page):
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert tag not in ("style", "base", "iframe", "object", "embed")
        if tag == "script":
            assert attributes["src"]
            assert text == []
        if tag == "form":
            assert "action" not in attributes


@pytest.mark.parametrize("page", PAGES)
def test_every_name_is_one_elements(page: str) -> None:
    known = ids(page)
    assert len(known) == len(set(known))
    for _, attributes, _ in elements(page):
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            for target in attributes.get(name, "").split():
                assert target in known, (name, target)


@pytest.mark.parametrize("page", PAGES)
def test_every_field_has_a_label_and_every_button_words(page: str) -> None:
    labels = {attributes["for"]: text for tag, attributes, text in elements(page) if tag == "label"}
    for tag, attributes, text in elements(page):
        if tag in LABELLED:
            assert "".join(labels[attributes["id"]]).strip()
        if tag == "button":
            assert "".join(text).strip()
            assert attributes["type"] in ("button", "submit")


@pytest.mark.parametrize("page", PAGES)
def test_scripts_know_the_ids_of_their_page(page: str) -> None:
    known = set(ids(page))
    for script in scripts_of(page):
        used = re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', FILES[script])
        assert set(used) <= known, script
        for prefix in re.findall(r"byId\(`([\w-]+)\$\{", FILES[script]):
            assert any(name.startswith(prefix) for name in known), prefix


def test_every_script_is_of_a_page() -> None:
    assert set.union(*map(scripts_of, PAGES)) == set(SCRIPTS)


def test_styles_know_the_ids_of_the_pages() -> None:
    known = {name for page in PAGES for name in ids(page)}
    for style in STYLES:
        selectors = re.sub(r"\{[^{}]*\}|/\*.*?\*/", "", FILES[style], flags=re.DOTALL)
        assert set(re.findall(r"#([a-z][\w-]*)", selectors)) <= known


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_write_no_html_and_run_no_text(script: str) -> None:
    content = FILES[script]
    forbidden = (
        r"(inner|outer)HTML\s*\+?=[^=]|insertAdjacentHTML|document\.write|\beval\(|new Function|cssText"
    )
    assert not re.search(forbidden, content)
    assert not re.search(r"""setAttribute\(["'](style|on)""", content)
    assert not re.search(r"\bstyle:", content)
    assert "localStorage" not in content or script == "theme.js"  # a key is never kept longer than its tab


def test_the_server_gives_every_file_with_its_type_and_the_policy(url: str, ask: Any) -> None:
    types = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    places = {"index.html": "/", "docs.html": "/docs"}
    for name, content in FILES.items():
        answer = ask(url + places.get(name, f"/static/{name}"))
        assert answer.status == 200
        assert answer.content.decode() == content
        assert answer.headers["Content-Type"] == f"{types[name.rpartition('.')[2]]}; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_the_examples_have_the_labels_that_their_names_say(forked: Any, tmp_path: Path) -> None:
    """The examples of the page, by the model that the README's first command trains."""
    script = FILES["single.js"]
    examples = dict(re.findall(r'^  \["([\w-]+)", "(.*)"\],$', script, re.MULTILINE))
    words = ["text_classification", "--output", "m.pt", "from_sample"]
    assert forked(*words, folder=tmp_path).returncode == 0
    found = dict(
        zip(examples, Predictor.load(tmp_path / "m.pt").predict(list(examples.values())), strict=True)
    )
    assert found["Thank-you"] == found["Ticket"] == []
    assert "insult" in found["Insult"]
    assert "threat" in found["Threat"]
