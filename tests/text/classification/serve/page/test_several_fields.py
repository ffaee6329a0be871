"""The page of a model that reads several fields, in a real browser: a box for each, and the columns of a CSV file."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flash.__main__ import main

CTRL = 2  # as the DevTools protocol has it
VERDICT = "document.querySelector('#verdict').innerText"
NOTHING_ASKED = "Which of 2 labels apply?"
READY = "!document.querySelector('#job').hidden && document.querySelector('#job-progress').hidden"


@pytest.fixture(scope="module")
def url(model_of_two: Path, serving: Any) -> Iterator[str]:
    with serving(model_of_two) as address:
        yield address


@pytest.fixture
def opened(page: Any, url: str) -> Any:
    """The page, with the fields and labels that it asked for."""
    page.go(url)
    page.wait("document.querySelectorAll('#bars tr').length === 2")
    return page


def labels_of(page: Any, selector: str) -> list[list[str]]:
    """The controls that are to be seen: id and label."""
    found: list[list[str]] = page.js(
        f"[...document.querySelectorAll('{selector}')].filter((one) => one.checkVisibility())"
        ".map((one) => [one.id, one.labels[0].innerText])"
    )
    return found


def values(page: Any) -> list[str]:
    found: list[str] = page.js("[...document.querySelectorAll('#one textarea')].map((one) => one.value)")
    return found


def select(page: Any, selector: str, value: str) -> None:
    page.js(
        f"(() => {{ const one = document.querySelector('{selector}'); one.value = '{value}';"
        "one.dispatchEvent(new Event('change')); })()"
    )


def open_file(page: Any, folder: Path, rows: list[list[str]], focus: str) -> Path:
    path = folder / "posts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    page.click("label[for=way-file]")
    page.choose_file("#csv", path)
    page.wait(f"document.activeElement.id === '{focus}'")
    return path


def test_each_field_has_a_box_and_any_of_them_is_answered(opened: Any) -> None:
    assert labels_of(opened, "#one textarea") == [["text-1", "title"], ["text", "body"]]
    assert opened.text("#verdict") == NOTHING_ASKED
    opened.click("#text-1")
    opened.type("a zebra")
    opened.wait(f"{VERDICT} === 'animal applies.'")
    opened.fill("#text", "and a banana")
    opened.wait(f"[{VERDICT}].every((text) => text.includes('animal') && text.includes('fruit'))")
    opened.fill("#text-1", "  ")
    opened.wait(f"{VERDICT} === 'fruit applies.'")
    opened.fill("#text", "\n")
    opened.wait(f"{VERDICT} === '{NOTHING_ASKED}'")


def test_the_fields_are_sent_in_the_models_order(opened: Any) -> None:
    bodies: list[Any] = []

    def keep(request: dict[str, Any]) -> None:
        if "postData" in request:
            bodies.append(json.loads(request["postData"]))

    opened.answer_with(keep)
    opened.fill("#text", "a banana \ud83d")
    opened.press("Enter", CTRL)
    opened.wait(f"{VERDICT} === 'fruit applies.'")
    opened.fill("#text-1", "a zebra")
    opened.wait(f"{VERDICT} !== 'fruit applies.'")
    assert bodies == [{"texts": [["", "a banana \ufffd"]]}, {"texts": [["a zebra", "a banana \ufffd"]]}]


def test_all_fields_count_together(page: Any, serving: Any, model_of_two: Path) -> None:
    with serving(model_of_two, max_text_length=2000) as url:
        page.go(url)
        page.wait("document.querySelectorAll('#bars tr').length === 2")
        page.fill("#text-1", "\U0001f9a6" * 1000)
        assert (
            page.text("#single-note") == "1,001 characters"
        )  # the server counts the separator between the fields
        page.fill("#text", "y" * 1000)
        page.wait("!document.querySelector('#error').hidden")
        assert (
            page.text("#error-text") == "This text is too long: 2,001 characters, and the server takes 2,000."
        )
        assert page.text("#single-note") == "2,001 characters"
        page.fill("#text", "y" * 990 + "   banana")
        page.wait(f"{VERDICT} === 'fruit applies.' && document.querySelector('#error').hidden")


def test_an_example_is_the_last_field_alone(opened: Any) -> None:
    opened.fill("#text-1", "a zebra")
    opened.wait(f"{VERDICT} === 'animal applies.'")
    opened.click("#examples button")
    opened.wait(f"{VERDICT} === 'No label applies.'")
    first, last = values(opened)
    assert first == ""
    assert last.startswith("Thank you for your help")


def test_with_the_keyboard(opened: Any) -> None:
    focus = "document.activeElement.id"
    opened.js("document.querySelector('#way-one').focus()")
    opened.press("Tab")
    assert opened.js(focus) == "text-1"
    opened.type("zebra")
    opened.press("Tab")
    assert opened.js(focus) == "text"
    opened.type("banana")
    opened.press("Enter", CTRL)
    opened.wait(f"{VERDICT}.endsWith(' apply.')")
    assert values(opened) == ["zebra", "banana"]
    opened.js("document.querySelector('#way-one').focus()")
    opened.press("ArrowRight")  # there is no way between
    opened.wait("!document.querySelector('#file').hidden && document.querySelector('#lines').hidden")


def test_several_texts_one_a_line_are_not_offered(page: Any, url: str) -> None:
    page.answer_with(lambda request: "hold" if request["url"].endswith("/info") else None)
    page.go(url)
    page.fill("#text", "a banana")  # before it is known what the model reads
    page.click("label[for=way-lines]")
    page.wait_for_held()
    page.release()
    page.wait(f"{VERDICT} === 'fruit applies.'")
    assert labels_of(page, ".ways input") == [["way-one", "One text"], ["way-file", "CSV file"]]
    assert page.js("document.querySelector('#way-one').checked && document.querySelector('#lines').hidden")
    assert values(page) == ["", "a banana"]


def test_a_file_with_the_fields_gives_what_flash_predict_gives(
    opened: Any, model_of_two: Path, tmp_path: Path
) -> None:
    rows = [
        ["id", "body", "title"],
        ["1", "a banana", "a zebra"],
        ["2", "one,\nand more", "zebra"],
        ["3", "banana", "<b>"],
        ["4", "nothing", ""],
    ]
    path = open_file(opened, tmp_path, rows, "file-go")
    assert opened.text("#file-facts") == "posts.csv: 4 rows, 3 columns, UTF-8"
    assert labels_of(opened, "#file-form select")[:2] == [
        ["column-1", "Column of title"],
        ["column", "Column of body"],
    ]
    assert opened.text("#preview").split("\n") == [
        "a zebra · a banana",
        "zebra · one, and more",
        "<b> · banana",
    ]
    opened.press("Enter")
    opened.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 4")
    header = opened.js("[...document.querySelectorAll('#answers-head th')].map((one) => one.textContent)")
    assert header[:4] == ["Row", "title", "body", "Labels"]
    cells = opened.js(
        "[...document.querySelectorAll('#answers tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert [row[:3] for row in cells] == [[row[0], row[2], row[1]] for row in rows[1:]]
    assert [len(row[3]) for row in cells] == [len("animalfruit"), len("animal"), len("fruit"), len("none")]

    opened.click("#job-save")
    saved = list(csv.reader(io.StringIO(opened.downloaded("posts-labels.csv").decode(), newline="")))
    output = tmp_path / "predicted.csv"
    assert main(["predict", str(model_of_two), "--input", str(path), "--output", str(output)]) == 0
    expected = list(csv.reader(io.StringIO(output.read_text(encoding="utf-8"), newline="")))
    assert saved[0] == expected[0]
    for one, other in zip(saved[1:], expected[1:], strict=True):
        assert one[:4] == other[:4]
        assert [float(cell) for cell in one[4:]] == pytest.approx(list(map(float, other[4:])), rel=1e-5)


def test_a_column_that_is_missing_is_named_and_can_be_chosen(opened: Any, tmp_path: Path) -> None:
    go_off = "document.querySelector('#file-go').disabled"
    facts = "posts.csv: 1 row, 3 columns, UTF-8"
    rows = [["id", "title", "content"], ["1", "a zebra", "a banana"]]
    open_file(opened, tmp_path, rows, "column")
    assert (
        opened.text("#file-facts")
        == f"{facts}. It has no column 'body': choose the column to read in its place."
    )
    assert opened.js(go_off)
    assert opened.js("document.querySelector('#preview-box').hidden")
    select(opened, "#column", "1")
    assert (
        opened.text("#file-facts")
        == f"{facts}. One column is chosen for two fields: choose another for one of them."
    )
    assert opened.js(go_off)
    select(opened, "#column", "2")
    assert opened.text("#file-facts") == facts
    opened.click("#file-go")
    opened.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 1")
    assert opened.text("#job-status") == "1 of 1 text has a label: animal (1) and fruit (1)."


def test_columns_that_are_all_missing_are_named(opened: Any, tmp_path: Path) -> None:
    open_file(opened, tmp_path, [["subject", "text"], ["a zebra", "a banana"]], "column-1")
    assert opened.text("#file-facts").endswith(
        "It has no columns 'title' and 'body': choose the columns to read in their places."
    )
    select(opened, "#column-1", "0")
    assert opened.text("#file-facts").endswith(
        "It has no column 'body': choose the column to read in its place."
    )
    select(opened, "#column", "1")
    opened.click("#file-go")
    opened.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 1")


def test_hostile_names_of_fields_are_text(page: Any, url: str, ask: Any, tmp_path: Path) -> None:
    names = ["<img src=x onerror='document.hacked = 1'>", "<b>body</b>"]
    info = json.dumps({**ask(f"{url}/info").json, "input_fields": names})
    page.answer_with(lambda request: (200, {}, info) if request["url"].endswith("/info") else None)
    page.go(url)
    page.wait("document.querySelectorAll('#bars tr').length === 2")
    assert [label for _, label in labels_of(page, "#one textarea")] == names
    open_file(page, tmp_path, [["a", names[1]], ["a zebra", "a banana"]], "column-1")
    assert f"It has no column '{names[0]}'" in page.text("#file-facts")
    select(page, "#column-1", "0")
    page.click("#file-go")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 1")
    assert page.js("document.querySelectorAll('main b, main img').length") == 0
    assert page.js("document.hacked === undefined")
