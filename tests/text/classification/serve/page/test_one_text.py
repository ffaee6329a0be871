"""The page for one text, in a real browser: bars as one types, keyboard, themes, keys, errors, hostile words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flash import Trainer
from flash.text import TextClassificationData, TextClassifier

MANY = 158
CTRL, SHIFT = 2, 8  # as the DevTools protocol has them
VERDICT = "document.querySelector('#verdict').innerText"
DONE = "document.querySelector('#result').getAttribute('aria-busy') === 'false'"


@pytest.fixture(scope="session")
def file_of_many_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of as many labels as a thesaurus has, each told by one word."""
    folder = tmp_path_factory.mktemp("many")
    rows = [(f"word{label} in row {row}", [f"label {label}"]) for row in range(4) for label in range(MANY)]
    texts, targets = [list(column) for column in zip(*rows, strict=True)]
    data = TextClassificationData.from_lists(
        train_data=texts,
        train_targets=targets,
        labels=[f"label {label}" for label in range(MANY)],
        multi_label=True,
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False,
    )  # fmt: skip
    trainer.finetune(TextClassifier(labels=data.labels, multi_label=True), datamodule=data)
    trainer.save_checkpoint(folder / "many.pt")
    return folder / "many.pt"


@pytest.fixture
def opened(page: Any, url: str) -> Any:
    """The page, with the labels that it asked for."""
    page.go(url)
    page.wait("document.querySelectorAll('#bars tr').length === 3")
    return page


def classified(page: Any) -> list[str]:
    """The texts that were sent, request by request."""
    return [url for url in page.requests if url.endswith("/v1/classify")]


def rows(page: Any) -> list[list[str]]:
    """The table as it reads."""
    found: list[list[str]] = page.js(
        "[...document.querySelectorAll('#bars tr')].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    return found


def test_the_page_says_what_the_server_is(opened: Any) -> None:
    assert opened.text("h1") == "words"
    assert opened.text("#about") == "3 labels, any number of which may apply to a text"
    assert opened.js("document.title") == "words · Flash"
    assert opened.text("#verdict") == "Which of 3 labels apply?"
    assert "linear" in opened.text("#facts")
    assert [row[0] for row in rows(opened)] == ["fruit", "animal", "<b>tool</b>"]


def test_typing_shows_every_label_against_its_threshold(opened: Any, url: str, ask: Any) -> None:
    opened.click("#text")
    opened.type("row 1 tells of zebra")
    opened.wait(f"{VERDICT} === 'animal applies.'")
    result = ask(f"{url}/v1/classify", {"texts": ["row 1 tells of zebra"]}).json["results"][0]
    thresholds = {one["label"]: one["threshold"] for one in ask(f"{url}/info").json["labels"]}
    opened.wait("document.querySelector('#text').value === 'row 1 tells of zebra' && " + DONE)
    assert [row[0] for row in rows(opened)] == sorted(
        result["scores"], key=result["scores"].get, reverse=True
    )
    assert rows(opened)[0][-1] == "✓\u202fapplies"
    assert {row[-1] for row in rows(opened)[1:]} == {"below"}
    for index, (label, score) in enumerate(result["scores"].items()):
        row = f"document.querySelectorAll('#bars tr')[{index}]"
        width = opened.js(f"parseFloat({row}.querySelector('.bar').style.width)")
        mark = opened.js(f"parseFloat({row}.querySelector('.mark').style.left)")
        assert width == pytest.approx(100 * score, abs=1e-3)
        assert mark == pytest.approx(100 * thresholds[label], abs=1e-3)


def test_all_of_it_with_the_keyboard(opened: Any) -> None:
    def tab_to(name: str, modifiers: int = 0) -> None:
        for _ in range(30):
            opened.press("Tab", modifiers)
            if opened.js("document.activeElement.id || document.activeElement.textContent") == name:
                assert opened.js(
                    "(() => { const one = document.activeElement.matches('.ways input') ?"
                    "document.activeElement.nextElementSibling : document.activeElement;"
                    "const style = getComputedStyle(one);"
                    "return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2; })()"
                ), f"{name} has the focus and shows it nowhere"
                return
        raise AssertionError(f"no way to {name} with Tab")

    tab_to("Skip to the text")
    tab_to("theme")
    tab_to("way-one")
    tab_to("text")
    opened.type("a hammer")
    opened.press("Enter", CTRL)
    opened.wait(f"{VERDICT} === '<b>tool</b> applies.'")
    tab_to("Thank-you")
    opened.press("Enter")
    opened.wait(f"{VERDICT} === 'No label applies.'")
    tab_to("way-one", SHIFT)
    opened.press("ArrowRight")
    opened.wait("!document.querySelector('#lines').hidden && document.querySelector('#one').hidden")
    tab_to("lines-text")
    opened.type("zebra")
    opened.press("Enter")
    opened.type("banana and hammer")
    opened.press("Enter", CTRL)
    opened.wait("document.querySelectorAll('#answers tr').length === 2")
    tab_to("job-save")
    tab_to("job-table")


def test_ctrl_enter_asks_the_same_again(opened: Any) -> None:
    opened.fill("#text", "zebra")
    opened.wait(f"{VERDICT} === 'animal applies.' && {DONE}")
    before = len(classified(opened))
    opened.press("Enter", CTRL)
    opened.wait(DONE)
    assert len(classified(opened)) == before + 1
    assert opened.js("document.querySelector('#text').value") == "zebra"


def test_an_answer_that_comes_late_changes_nothing(opened: Any) -> None:
    opened.answer_with(lambda request: "hold" if "zebra" in request.get("postData", "") else None)
    opened.fill("#text", "zebra")
    opened.press("Enter", CTRL)
    opened.wait(f"!({DONE})")
    opened.fill("#text", "banana")
    opened.wait(f"{VERDICT} === 'fruit applies.' && {DONE}")
    opened.release()
    opened.fill("#text", "")
    opened.wait(f"{VERDICT} === 'Which of 3 labels apply?'")


def test_examples_are_answered(opened: Any) -> None:
    texts = set()
    for index in range(opened.js("document.querySelectorAll('#examples button').length")):
        opened.click(f"#examples button:nth-child({index + 1})")
        opened.wait(f"{VERDICT}.endsWith('.') && {DONE}")
        texts.add(opened.js("document.querySelector('#text').value"))
    assert len(texts) == 5


def test_no_text_is_no_question(opened: Any) -> None:
    opened.fill("#text", "zebra")
    opened.wait(f"{VERDICT} === 'animal applies.' && {DONE}")
    before = len(classified(opened))
    opened.fill("#text", "  ")
    opened.wait(f"{VERDICT} === 'Which of 3 labels apply?'")
    assert len(classified(opened)) == before
    assert [row[2] for row in rows(opened)] == ["", "", ""]


def test_hostile_texts_and_labels_are_text(opened: Any) -> None:
    for text in [
        "<script>document.hacked = 1</script> hammer",
        "<img src=x onerror='document.hacked = 1'> hammer",
        "\u202eremmah\u202c hammer \u05e9\u05dc\u05d5\u05dd",
        "\U0001f9a6 hammer \u0000 \ud83d",
    ]:
        opened.js(f"document.querySelector('#text').value = {json.dumps(text)}")
        opened.js("document.querySelector('#one-form').requestSubmit()")
        opened.wait(f"{VERDICT} === '<b>tool</b> applies.' && {DONE}")
    assert opened.js("document.querySelectorAll('main b, main img, main script').length") == 0
    assert opened.js("document.hacked === undefined")


def test_the_theme_is_the_systems_until_it_is_chosen(page: Any, url: str) -> None:
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(18, 20, 22)'"
    page.prefer(color_scheme="dark")
    page.go(url)
    page.wait(f"{dark} && document.querySelector('#theme').getAttribute('aria-checked') === 'true'")
    page.click("#theme")
    page.wait(f"!({dark}) && document.querySelector('#theme').getAttribute('aria-checked') === 'false'")
    page.go(f"{url}/docs")
    page.wait("document.querySelectorAll('.endpoint').length > 5")
    assert not page.js(dark)
    page.click("#theme")
    page.wait(dark)
    page.prefer(color_scheme="light")
    page.wait(f"!({dark})")  # it follows the system again, as it was chosen back to it


def test_nothing_moves_for_who_wants_it_so(opened: Any) -> None:
    assert opened.js("getComputedStyle(document.querySelector('.bar')).transitionDuration") != "0s"
    opened.prefer(reduced_motion="reduce")
    assert opened.js(
        "[...document.querySelectorAll('*')].every(one => getComputedStyle(one).transitionDuration === '0s')"
    )


def test_the_servers_own_sentence_is_shown(opened: Any) -> None:
    problem = {"error": {"message": "the model could not answer", "type": "server_error"}}
    opened.answer_with(lambda request: (500, {}, json.dumps(problem)))
    opened.click("#examples button")
    opened.wait("!document.querySelector('#error').hidden")
    assert opened.text("#error-text") == "The model could not answer."
    assert [row[2] for row in rows(opened)] == ["", "", ""]  # no bars of another text
    opened.answer_with(lambda request: (502, {}, "<h1>Bad gateway</h1>"))
    opened.click("#retry")
    opened.wait("document.querySelector('#error-text').innerText.startsWith('The server answered 502')")
    opened.answer_with(lambda request: "ConnectionRefused")
    opened.click("#retry")
    opened.wait(
        "document.querySelector('#error-text').innerText === 'The server does not answer. Is it still running?'"
    )
    opened.answer_with(None)
    opened.click("#retry")
    opened.wait(f"document.querySelector('#error').hidden && {VERDICT} === 'No label applies.'")


def test_a_busy_server_is_asked_again(opened: Any) -> None:
    asked: list[str] = []

    def busy(request: dict[str, Any]) -> Any:
        asked.append(request["url"])
        return (503, {"Retry-After": "1"}, '{"error": {"message": "busy"}}') if len(asked) < 3 else None

    opened.answer_with(busy)
    opened.fill("#text", "zebra")
    opened.press("Enter", CTRL)
    opened.wait(f"{VERDICT} === 'animal applies.'")
    assert len(asked) == 3
    assert opened.js("document.querySelector('#error').hidden")


def test_a_server_that_is_away_at_first(page: Any, url: str) -> None:
    page.answer_with(lambda request: "ConnectionRefused" if request["url"].endswith("/info") else None)
    page.go(url)
    page.wait("!document.querySelector('#error').hidden")
    page.fill("#text", "zebra")
    page.answer_with(None)
    page.click("#retry")
    page.wait(f"{VERDICT} === 'animal applies.' && document.querySelector('#error').hidden")


def test_behind_a_proxy_that_adds_a_prefix(page: Any, url: str, ask: Any) -> None:
    asked: list[str] = []

    def proxy(request: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        path = request["url"].removeprefix(url)
        asked.append(path)
        if not path.startswith("/models/comments/"):
            return 404, {}, "not mine"
        body = request["postData"].encode() if "postData" in request else None
        answer = ask(url + path.removeprefix("/models/comments"), body)
        return answer.status, dict(answer.headers), answer.content.decode()

    page.answer_with(proxy)
    page.go(f"{url}/models/comments/")
    page.wait("document.querySelectorAll('#bars tr').length === 3")
    page.fill("#text", "zebra")
    page.wait(f"{VERDICT} === 'animal applies.'")
    page.click("a[href=docs]")
    page.wait("document.querySelectorAll('.endpoint').length > 5")
    assert f"curl {url}/models/comments/v1/classify" in page.text("#post-v1-classify")
    page.click("a[href='./']")
    page.wait("document.querySelectorAll('#bars tr').length === 3")
    assert [path for path in asked if not path.startswith("/models/comments/")] == []


def test_a_text_that_is_too_long_is_not_sent(page: Any, serving: Any) -> None:
    with serving(max_text_length=2000) as url:
        page.go(url)
        page.wait("document.querySelectorAll('#bars tr').length === 3")
        page.fill("#text", "\U0001f9a6" * 2001)
        page.press("Enter", CTRL)
        page.wait("!document.querySelector('#error').hidden")
        assert (
            page.text("#error-text") == "This text is too long: 2,001 characters, and the server takes 2,000."
        )
        assert page.text("#single-note") == "2,001 characters"
        assert classified(page) == []
        page.fill("#text", "\U0001f9a6" * 1992 + " hammer")
        page.wait(f"{VERDICT} === '<b>tool</b> applies.' && document.querySelector('#error').hidden")


def test_many_labels_are_sorted_and_filtered(page: Any, serving: Any, file_of_many_labels: Path) -> None:
    with serving(file_of_many_labels) as url:
        page.go(url)
        page.wait("document.querySelectorAll('#bars tr').length === 15")
        page.fill("#text", "word157 and word31")
        page.wait(f"{VERDICT}.includes('label 157') && {DONE}")
        table = rows(page)
        assert {table[0][0], table[1][0]} == {"label 157", "label 31"}
        page.click("#more")
        page.wait(f"document.querySelectorAll('#bars tr').length === {MANY}")
        widths = page.js(
            "[...document.querySelectorAll('#bars .bar')].map(one => parseFloat(one.style.width))"
        )
        assert widths == sorted(widths, reverse=True)
        page.click("#more")
        page.click("#filter")
        page.type("LABEL 15")
        page.wait("document.querySelector('#filter-count').innerText === '9 of 158 labels'")
        assert len(rows(page)) == 9
        assert rows(page)[0][0] == "label 157"


def test_exclusive_labels_have_no_thresholds(page: Any, serving: Any, single_label_file: Path) -> None:
    with serving(single_label_file) as url:
        page.go(url)
        page.wait("document.querySelectorAll('#bars tr').length === 3")
        assert page.text("#about") == "3 labels, one of which is each text's"
        page.fill("#text", "zebra")
        page.wait(f"{VERDICT} === 'Most probably animal.' && {DONE}")
        assert page.js("document.querySelectorAll('.mark, #bars .threshold').length") == 0
        assert rows(page)[0][-1] == "✓\u202fmost probable"
        assert page.js("document.querySelector('#legend').hidden")


@pytest.fixture
def locked(serving: Any) -> Iterator[str]:
    """A server that asks for a key."""
    with serving(api_keys=("open-sesame-7", "second-key-8")) as url:
        yield url


def test_a_key_is_asked_for_and_kept_in_the_tab_only(page: Any, locked: str) -> None:
    page.go(locked)
    page.wait("!document.querySelector('#key-panel').hidden && document.activeElement.id === 'key'")
    assert page.text("#key-why") == "Who runs the server can give you one."
    page.type("sesame")
    page.press("Enter")
    page.wait("document.querySelector('#key-why').innerText === 'That key was not taken.'")
    page.wait("!document.querySelector('#key-panel').hidden && document.activeElement.id === 'key'")
    page.type("open-sesame-7")
    page.press("Enter")
    page.wait(
        "document.querySelector('#key-panel').hidden && document.querySelectorAll('#bars tr').length === 3"
    )
    assert page.js("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    page.fill("#text", "zebra")
    page.wait(f"{VERDICT} === 'animal applies.'")
    assert not any("sesame" in url for url in page.requests)

    page.go(f"{locked}/?again")
    page.wait("document.querySelectorAll('#bars tr').length === 3")
    assert page.js("document.querySelector('#key-panel').hidden")
    page.click("#metrics-link")  # a link would send no key
    page.wait("document.querySelector('#peek').open")
    assert "# HELP" in page.text("#peek-text")
    page.press("Escape")
    page.wait("!document.querySelector('#peek').open && document.activeElement.id === 'metrics-link'")
    page.click("#info-link")
    page.wait("document.querySelector('#peek').open")
    assert '"model": "words"' in page.text("#peek-text")
    page.click("#peek-close")

    page.click("#forget")
    page.fill("#text", "banana")
    page.wait("!document.querySelector('#key-panel').hidden")
    assert page.js("sessionStorage.length") == 0
    page.type("second-key-8")
    page.press("Enter")
    page.wait(f"{VERDICT} === 'fruit applies.'")  # what was asked is answered now


def test_a_key_that_no_header_can_hold(page: Any, locked: str) -> None:
    page.go(locked)
    page.wait("document.activeElement.id === 'key'")
    page.fill("#key", "ключ")
    page.press("Enter")
    page.wait("!document.querySelector('#error').hidden")
    assert "no key can have" in page.text("#error-text")
    page.click("#retry")
    page.wait("!document.querySelector('#key-panel').hidden")
