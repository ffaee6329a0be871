"""Several texts and CSV files on the page, in a real browser: what is sent, what is shown, what is saved."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from flash.__main__ import main

HOSTILE = [
    "<script>document.hacked = 1</script> hammer",
    '<img src=x onerror="document.hacked = 1">, zebra',
    'She said "banana",\nand then:\r\n"zebra"',
    "\u05e9\u05dc\u05d5\u05dd \u202ebanana\u202c",
    "\U0001f9a6\U0001f9a6 hammer",
    "a NUL \u0000 in a zebra",
    "=1+1 banana",
    "@somebody zebra",
    "-2.5",
    "  spaces around  ",
    "",
]
READY = "!document.querySelector('#job').hidden && document.querySelector('#job-progress').hidden"


def read(content: bytes) -> list[list[str]]:
    """A CSV file as Python reads it; its reader refused U+0000 until 3.11."""
    return list(csv.reader(io.StringIO(content.decode().replace("\0", "\u2400"), newline="")))


def write(path: Path, rows: list[list[str]], *, encoding: str = "utf-8", **dialect: Any) -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, **dialect).writerows(rows)
    return path


def open_page(page: Any, url: str, way: str) -> None:
    page.go(url)
    page.wait("document.querySelectorAll('#bars tr').length === 3")
    page.click(f"label[for=way-{way}]")


def table(page: Any) -> list[list[str]]:
    found: list[list[str]] = page.js(
        "[...document.querySelectorAll('#answers tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return found


def test_one_text_a_line(page: Any, url: str) -> None:
    open_page(page, url, "lines")
    page.click("#lines-text")
    page.press("Enter", 2)
    page.wait("!document.querySelector('#error').hidden")
    assert "no text yet" in page.text("#error-text")
    page.fill("#lines-text", "a zebra\n\n  \nbanana and hammer\nnothing\n")
    assert page.text("#lines-note") == "3 texts"
    page.click("#lines-form button[type=submit]")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 3")
    assert [row[:3] for row in table(page)] == [
        ["1", "a zebra", "animal"],
        ["2", "banana and hammer", table(page)[1][2]],
        ["3", "nothing", "none"],
    ]
    assert sorted([table(page)[1][2]]) in (["fruit<b>tool</b>"], ["<b>tool</b>fruit"])
    assert page.text("#job-status") == "2 of 3 texts have a label: fruit (1), animal (1) and <b>tool</b> (1)."
    header = page.js("[...document.querySelectorAll('#answers-head th')].map(one => one.textContent)")
    assert header == ["Row", "Text", "Labels", "fruit", "animal", "<b>tool</b>"]
    assert page.js("document.querySelectorAll('#answers .yes').length") == 3
    assert page.js("document.querySelectorAll('main b').length") == 0


@pytest.mark.parametrize(
    ("encoding", "dialect"),
    [
        ("utf-8", {}),
        ("utf-8-sig", {"delimiter": ";", "lineterminator": "\n"}),
        ("utf-16", {"delimiter": "\t", "quoting": csv.QUOTE_ALL}),
    ],
    ids=["plain", "bom and semicolons", "utf-16 and tabs"],
)
def test_a_dropped_file_gives_what_flash_predict_gives(
    page: Any, url: str, model_file: Path, tmp_path: Path, encoding: str, dialect: dict[str, Any]
) -> None:
    hostile = [[str(index), text, 'a "note"; x'] for index, text in enumerate(HOSTILE)]
    rows = [["id", "comment_text", "note, or two"], *hostile]
    path = write(tmp_path / "hostile.csv", rows, encoding=encoding, **dialect)
    open_page(page, url, "one")
    page.drop_file(path)
    page.wait("document.activeElement.id === 'file-go'")
    assert page.text("#file-facts").startswith("hostile.csv: 11 rows, 3 columns, UTF-")
    assert page.js("document.querySelector('#column').selectedOptions[0].textContent") == "comment_text"
    page.press("Enter")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === {len(HOSTILE)}")
    # line ends are the HTML standard's to show; control characters are shown as pictures
    shown = [row[1].replace("\u2400", "\u0000") for row in table(page)]
    assert shown == HOSTILE
    assert page.js("document.querySelectorAll('main b, main img, main script').length") == 0
    assert page.js("document.hacked === undefined")

    page.click("#job-save")
    saved = read(page.downloaded("hostile-labels.csv"))
    plain = write(tmp_path / "plain.csv", rows)
    output = tmp_path / "predicted.csv"
    assert main(["predict", str(model_file), "--input", str(plain), "--output", str(output)]) == 0
    expected = read(output.read_bytes())
    assert saved[0] == expected[0]
    for one, other in zip(saved[1:], expected[1:], strict=True):
        assert one[:4] == other[:4]
        assert [float(cell) for cell in one[4:]] == pytest.approx(
            [float(cell) for cell in other[4:]], rel=1e-5
        )


def test_a_file_for_a_spreadsheet_runs_no_formula(page: Any, url: str, tmp_path: Path) -> None:
    path = write(tmp_path / "texts.csv", [["text"], *[[text] for text in HOSTILE if text]])
    open_page(page, url, "file")
    page.choose_file("#csv", path)
    page.wait("document.activeElement.id === 'file-go'")
    page.press("Enter")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === {len(HOSTILE) - 1}")
    page.click("#spreadsheet")
    page.click("#job-save")
    content = page.downloaded("texts-labels.csv")
    assert content.startswith(b"\xef\xbb\xbf")
    cells = [row[0] for row in read(content[3:])[1:]]
    assert "'=1+1 banana" in cells
    assert "'@somebody zebra" in cells
    assert "-2.5" in cells  # a number stays one
    assert HOSTILE[0] in cells


def test_portions_fit_what_the_server_takes(page: Any, serving: Any, tmp_path: Path) -> None:
    bodies: list[str] = []

    def keep(request: dict[str, Any]) -> None:
        if "postData" in request:
            bodies.append(request["postData"])

    with serving(max_texts=3, max_body=1100, max_text_length=300) as url:
        texts = [f"row {index} tells of zebra" for index in range(20)]
        texts[4], texts[9], texts[15] = "x" * 301, "\U0001f9a6" * 300, "\U0001f9a6 row 15 tells of banana"
        texts[17] = texts[18] = "\u00e9" * 270 + " row 16 tells of zebra"
        path = write(tmp_path / "some.csv", [["text"], *[[text] for text in texts]])
        open_page(page, url, "file")
        page.answer_with(keep)
        page.choose_file("#csv", path)
        page.wait("document.activeElement.id === 'file-go'")
        page.press("Enter")
        page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 20")
        assert [text for body in bodies for text in json.loads(body)["texts"]] == [
            text for index, text in enumerate(texts) if index not in (4, 9)
        ]
        assert max(len(body.encode()) for body in bodies) <= 1100
        assert len(bodies) == 7
        problems = [row for row in table(page) if row[2].startswith("! too long")]
        assert [row[0] for row in problems] == ["5", "10"]
        assert "301 characters, and the server takes 300" in problems[0][2]
        assert "bytes, and the server takes 1,100" in problems[1][2]
        assert page.text("#job-status").startswith("18 of 18 texts have a label: animal (17) and fruit (1).")
        assert page.text("#job-status").endswith("2 texts could not be answered.")
        page.click("#job-save")
        saved = read(page.downloaded("some-labels.csv"))
        assert saved[0][-1] == "problem"
        assert saved[5][1:5] == ["", "", "", ""]
        assert saved[5][5].startswith("too long")
        assert saved[1][5] == ""


def test_a_busy_server_and_a_lost_connection_are_waited_for(page: Any, url: str) -> None:
    asked: list[str] = []
    answers: dict[int, Any] = {
        1: (503, {"Retry-After": "1"}, '{"error": {"message": "busy"}}'),
        2: "ConnectionReset",
        3: (413, {}, '{"error": {"message": "too large"}}'),
    }

    def trouble(request: dict[str, Any]) -> Any:
        asked.append(request["url"])
        return answers.get(len(asked))

    open_page(page, url, "lines")
    page.answer_with(trouble)
    page.fill("#lines-text", "\n".join(f"row {index} tells of banana" for index in range(9)))
    page.click("#lines-form button[type=submit]")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 9")
    assert page.text("#job-status") == "9 of 9 texts have a label: fruit (9)."
    assert len(asked) == 5  # three in vain, two halves


def test_a_text_that_the_server_refuses_is_marked(page: Any, url: str) -> None:
    refused: tuple[int, dict[str, str], str] = (422, {}, '{"error": {"message": "texts[0] is poison"}}')
    open_page(page, url, "lines")
    page.answer_with(lambda request: refused if "poison" in request.get("postData", "") else None)
    page.fill("#lines-text", "\n".join(["banana"] * 6 + ["poison"] + ["zebra"] * 6))
    page.click("#lines-form button[type=submit]")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 13")
    assert [row[2] for row in table(page)] == ["fruit"] * 6 + ["! texts[0] is poison."] + ["animal"] * 6


def test_stopping_keeps_what_is_answered(page: Any, url: str) -> None:
    texts = ["zebra" + " " * index for index in range(200)]
    late = json.dumps(texts[100])
    open_page(page, url, "lines")
    page.answer_with(lambda request: "hold" if late in request.get("postData", "") else None)
    page.fill("#lines-text", "\n".join(texts))
    page.click("#lines-form button[type=submit]")
    page.wait(
        "!document.querySelector('#job-stop').hidden && document.querySelector('#job-progress').value > 0"
    )
    page.wait_for_held()
    page.click("#job-stop")
    page.wait(READY)
    assert page.js("document.activeElement.id") == "job-go-on"
    stopped = page.js("document.querySelector('#job-progress').value")
    assert page.text("#job-status").startswith(f"Stopped after {stopped} of 200 texts.")
    page.click("#job-save")
    assert len(read(page.downloaded("texts-labels.csv"))) == stopped + 1
    page.release()
    page.click("#job-go-on")
    page.wait(f"{READY} && document.querySelector('#job-progress').value === 200")
    assert page.text("#job-status") == "200 of 200 texts have a label: animal (200)."
    assert len(table(page)) == 100
    assert page.text("#job-more") == "Show 100 more of 100 rows"
    page.click("#job-more")
    page.wait("document.querySelectorAll('#answers tr').length === 200")
    assert page.js("document.querySelector('#job-more').hidden")
    page.click("#job-save")
    saved = read(page.downloaded("texts-labels.csv"))
    assert [row[0] for row in saved] == ["text", *texts]


def test_errors_end_the_work_and_it_can_go_on(page: Any, url: str) -> None:
    open_page(page, url, "lines")
    page.answer_with(lambda request: (403, {}, '{"error": "not today"}'))
    page.fill("#lines-text", "banana\nzebra")
    page.click("#lines-form button[type=submit]")
    page.wait("!document.querySelector('#error').hidden")
    assert page.text("#error-text") == "Not today."
    page.answer_with(None)
    page.click("#job-go-on")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 2")
    assert page.js("document.querySelector('#error').hidden")


def test_a_model_that_changes_in_the_middle_ends_the_work(page: Any, url: str) -> None:
    other = {"model": "other", "results": [{"labels": ["x"], "scores": {"x": 0.9}}]}
    open_page(page, url, "lines")
    page.answer_with(lambda request: (200, {}, json.dumps(other)))
    page.fill("#lines-text", "banana")
    page.click("#lines-form button[type=submit]")
    page.wait("!document.querySelector('#error').hidden")
    assert "another model now" in page.text("#error-text")


def test_the_column_and_the_delimiter_can_be_chosen(page: Any, url: str, tmp_path: Path) -> None:
    rows = [["title", "body|text"], ["banana", "zebra"], ["hammer", "hammer"]]
    path = write(tmp_path / "posts.csv", rows)
    open_page(page, url, "file")
    page.choose_file("#csv", path)
    page.wait("document.activeElement.id === 'column'")  # nothing tells which it is
    assert page.js("document.querySelector('#file-go').disabled")
    page.js(
        "(() => { const one = document.querySelector('#column'); one.value = '1';"
        "one.dispatchEvent(new Event('change')); })()"
    )
    assert page.text("#preview").split("\n") == ["zebra", "hammer"]
    page.click("#file-go")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 2")
    assert [row[2] for row in table(page)] == ["animal", "<b>tool</b>"]
    page.js(
        "(() => { const one = document.querySelector('#delimiter'); one.value = ';';"
        "one.dispatchEvent(new Event('change')); })()"
    )
    assert page.text("#file-facts") == "posts.csv: 2 rows, 1 column, UTF-8"
    page.click("#file-go")
    page.wait(
        f"{READY} && document.querySelectorAll('#answers tr')[0]?.cells[1].textContent === 'banana,zebra'"
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'text\nfine\n"never closed\nmore', "The double quote that opens in line 3 is never closed"),
        (b"", "The file is empty"),
        (b"\xef\xbb\xbf\n\n", "The file is empty"),
    ],
    ids=["open quote", "empty", "bom only"],
)
def test_a_file_that_is_no_csv(page: Any, url: str, tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    open_page(page, url, "file")
    page.choose_file("#csv", path)
    page.wait("!document.querySelector('#error').hidden")
    assert page.text("#error-text").startswith(sentence)
    assert page.js("document.querySelector('#file-form').hidden")
    good = write(tmp_path / "good.csv", [["text"], ["zebra"]])
    page.choose_file("#csv", good)
    page.wait("document.activeElement.id === 'file-go' && document.querySelector('#error').hidden")


def test_columns_that_are_there_already_keep_their_names(page: Any, url: str, tmp_path: Path) -> None:
    path = write(tmp_path / "twice.csv", [["text", "labels"], ["zebra", "mine"]])
    open_page(page, url, "file")
    page.choose_file("#csv", path)
    page.wait("document.activeElement.id === 'file-go'")
    page.press("Enter")
    page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 1")
    page.click("#job-save")
    saved = read(page.downloaded("twice-labels.csv"))
    assert saved[0][:3] == ["text", "labels", "predicted_labels"]
    assert saved[1][:3] == ["zebra", "mine", "animal"]


def test_a_key_is_asked_for_in_the_middle(page: Any, serving: Any) -> None:
    with serving(api_keys=("secret-key-9",)) as url:
        page.go(url)
        page.wait("document.activeElement.id === 'key'")
        page.type("secret-key-9")
        page.press("Enter")
        page.wait("document.querySelectorAll('#bars tr').length === 3")
        page.click("#forget")
        page.click("label[for=way-lines]")
        page.fill("#lines-text", "banana\nzebra")
        page.click("#lines-form button[type=submit]")
        page.wait("document.activeElement.id === 'key'")
        page.type("secret-key-9")
        page.press("Enter")
        page.wait(f"{READY} && document.querySelectorAll('#answers tr').length === 2")
