"""What a page owes to everybody, checked by the browser's own accessibility tree and by its colours and sizes."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

NAMED = {
    "button", "link", "textbox", "searchbox", "checkbox", "radio", "combobox", "switch", "heading", "table",
    "region", "dialog", "progressbar", "navigation", "ComboBoxSelect", "PopUpButton", "image",
}  # fmt: skip
# Of every text that is to be seen: its contrast with what is behind it.
CONTRASTS = """(() => {
  const numbers = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const [red, green, blue, alpha = 1] = numbers(getComputedStyle(one).backgroundColor);
      if (alpha === 1) return [red, green, blue];
    }
    return [255, 255, 255];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    if (!style.color.startsWith('rgb(')) throw new Error(style.color);
    const [one, other] = [light(numbers(style.color)), light(behind(element))].sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  for (const field of document.querySelectorAll('input, select, textarea')) {
    if (!field.checkVisibility() || field.matches('.ways input, #csv')) continue;
    const style = getComputedStyle(field);
    const [one, other] = [light(numbers(style.color)), light(behind(field))].sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), field.id]);
  }
  return found;
})()"""
# What can be pressed, and how large it is; words in a sentence are let off, as in the guidelines.
SIZES = """[...document.querySelectorAll('button, .drop label, input, select, textarea, .bottom a, summary')]
  .filter((one) => one.checkVisibility() && !one.matches('.ways input, #csv'))
  .map((one) => [one.id || one.textContent, one.getBoundingClientRect().width, one.getBoundingClientRect().height])"""
OVERFLOW = """[...document.querySelectorAll('body *')]
  .filter((one) => one.checkVisibility() && !one.closest('.unseen, .skip, .scroll, [hidden], .ways input, thead'))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 80))"""


def empty(page: Any, url: str, folder: Path) -> None:
    page.go(url)
    page.wait("document.querySelectorAll('#bars tr').length === 3")


def one_text(page: Any, url: str, folder: Path) -> None:
    empty(page, url, folder)
    page.fill("#text", "zebra")
    page.wait("document.querySelector('#verdict').innerText === 'animal applies.'")


def many_texts(page: Any, url: str, folder: Path) -> None:
    empty(page, url, folder)
    page.click("label[for=way-lines]")
    page.fill("#lines-text", "banana\n" + "nothingatall" * 30)
    page.click("#lines-form button[type=submit]")
    page.wait("document.querySelectorAll('#answers tr').length === 2")


def a_file(page: Any, url: str, folder: Path) -> None:
    empty(page, url, folder)
    (folder / "texts.csv").write_text("id,text\n1,banana\n2,zebra\n")
    page.click("label[for=way-file]")
    page.choose_file("#csv", folder / "texts.csv")
    page.wait("document.activeElement.id === 'file-go'")


def two_fields(page: Any, url: str, folder: Path) -> None:
    with urlopen(f"{url}/info", timeout=20) as answer:
        info = json.dumps({**json.load(answer), "input_fields": ["title", "body"]})
    page.answer_with(lambda request: (200, {}, info) if request["url"].endswith("/info") else None)
    empty(page, url, folder)
    assert page.js("document.querySelectorAll('#one textarea').length") == 2


def a_file_without_a_field(page: Any, url: str, folder: Path) -> None:
    two_fields(page, url, folder)
    (folder / "texts.csv").write_text("title,text\nbanana,zebra\n")
    page.click("label[for=way-file]")
    page.choose_file("#csv", folder / "texts.csv")
    page.wait("document.activeElement.id === 'column'")


def an_error(page: Any, url: str, folder: Path) -> None:
    empty(page, url, folder)
    page.answer_with(lambda request: (500, {}, '{"error": {"message": "broken"}}'))
    page.fill("#text", "zebra")
    page.wait("!document.querySelector('#error').hidden")


def the_key(page: Any, url: str, folder: Path) -> None:
    page.answer_with(lambda request: (401, {}, "{}") if request["url"].endswith("info") else None)
    page.go(url)
    page.wait("!document.querySelector('#key-panel').hidden")


def the_docs(page: Any, url: str, folder: Path) -> None:
    page.go(f"{url}/docs")
    page.wait("document.querySelectorAll('.endpoint').length > 5")


STATES = [
    empty, one_text, many_texts, a_file, two_fields, a_file_without_a_field, an_error, the_key, the_docs,
]  # fmt: skip
State = Callable[[Any, str, Path], None]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_text_can_be_read(page: Any, url: str, tmp_path: Path, state: State, theme: str) -> None:
    page.prefer(color_scheme=theme, reduced_motion="reduce")
    state(page, url, tmp_path)
    contrasts = page.js(CONTRASTS)
    assert len(contrasts) > 10
    assert [found for found in contrasts if found[0] < 4.5] == []


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_everything_has_a_name_for_a_screen_reader(page: Any, url: str, tmp_path: Path, state: State) -> None:
    state(page, url, tmp_path)
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    seen = [
        (node["role"]["value"], node.get("name", {}).get("value", ""), node.get("properties", []))
        for node in nodes
        if not node["ignored"]
    ]
    roles = [role for role, _, _ in seen]
    assert {"main", "contentinfo", "banner", "heading"} <= set(roles)
    assert roles.count("main") == 1
    assert [role for role, name, _ in seen if role in NAMED and not name.strip()] == []
    names = [(role, name) for role, name, _ in seen if role in ("button", "textbox", "searchbox", "combobox")]
    assert len(names) == len(set(names)), names
    levels = [
        each["value"]["value"]
        for role, _, properties in seen if role == "heading"
        for each in properties if each["name"] == "level"
    ]  # fmt: skip
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels)), levels
    assert page.js("document.documentElement.lang") == "en"
    assert page.js("[...document.querySelectorAll('[id]')].every((one, i, all) =>"
                   " all.findIndex((other) => other.id === one.id) === i)")  # fmt: skip


def test_the_bars_are_a_table_with_words(page: Any, url: str, tmp_path: Path) -> None:
    for width in (1280, 320):
        page.size(width, 800)
        one_text(page, url, tmp_path)
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        seen = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]
        assert ("columnheader", "Probability") in seen
        assert ("rowheader", "animal") in seen
        assert ("cell", "✓\u202fapplies") in seen
        assert [name for role, name in seen if role == "cell"].count("below") == 2
        assert any(role == "status" for role, _ in seen)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_nothing_is_cut_off_at_320_pixels(page: Any, url: str, tmp_path: Path, state: State) -> None:
    page.size(320, 640)
    state(page, url, tmp_path)
    assert page.js(OVERFLOW) == []
    assert page.js("document.scrollingElement.scrollWidth") == 320


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_what_can_be_pressed_is_large_enough(page: Any, url: str, tmp_path: Path, state: State) -> None:
    state(page, url, tmp_path)
    sizes = page.js(SIZES)
    assert sizes
    small = [found for found in sizes if (found[1] < 24 or found[2] < 24) and found[0] != "spreadsheet"]
    assert small == []
