"""A model that reads several fields of a text, asked over HTTP in each protocol."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flash.text import TextClassifier
from flash.text.classification.predictor import Predictor

Ask = Callable[..., Any]
TEXT = {"title": "a zebra", "body": "and a banana"}
PAIR = ["a zebra", "and a banana"]


@pytest.fixture(scope="module")
def url(model_of_two: Path, serving: Any) -> Iterator[str]:
    with serving(model_of_two) as address:
        yield address


def test_the_file_remembers_the_fields(model_of_two: Path) -> None:
    predictor = Predictor.load(model_of_two)
    assert predictor.input_fields == ("title", "body")
    assert predictor.predict([TEXT, PAIR, {"title": "a zebra", "body": None}]) == [
        ["animal", "fruit"], ["animal", "fruit"], ["animal"]
    ]  # fmt: skip
    assert TextClassifier.load_from_checkpoint(model_of_two).input_fields == ["title", "body"]


def test_objects_and_lists_in_each_protocol(url: str, ask: Ask) -> None:
    assert ask(f"{url}/info").json["input_fields"] == ["title", "body"]
    results = ask(f"{url}/v1/classify", {"texts": [TEXT, PAIR, "a zebra\x1fand a banana"]}).json["results"]
    assert [sorted(result["labels"]) for result in results] == [["animal", "fruit"]] * 3
    scores = results[0]["scores"]
    made = ask(f"{url}/predict", {"payload": {"inputs": {"data": TEXT}}}).json
    assert made["result"]["outputs"] == scores
    made = ask(f"{url}/predict", {"payload": {"inputs": {"data": [TEXT, PAIR]}}}).json
    assert made["result"]["outputs"] == [scores, scores]
    made = ask(f"{url}/predict", {"inputs": TEXT}).json
    assert {one["label"]: one["score"] for one in made} == scores
    made = ask(f"{url}/", {"inputs": [PAIR]}).json
    assert {one["label"]: one["score"] for one in made[0]} == scores
    parts = [{"type": "text", "text": text} for text in PAIR]
    made = ask(f"{url}/v1/moderations", {"input": parts}).json
    assert made["results"][0]["category_scores"] == scores


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/classify", {"texts": [TEXT, "plain"]},
         "texts[1] is one plain text, and this model reads 2 fields: 'title', 'body'; give an object such as"),
        ("/v1/classify", {"texts": [{"title": "a"}]}, "texts[0] has no field 'body' (it has 'title')"),
        ("/v1/classify", {"texts": [["a", "b", "c"]]}, "texts[0] is a list of 3, and this model reads 2 fields"),
        ("/predict", {"inputs": "plain"}, "inputs is one plain text, and this model reads 2 fields"),
        ("/predict", {"payload": {"inputs": {"data": "plain"}}}, "payload.inputs.data is one plain text"),
        ("/v1/moderations", {"input": "plain"}, "input is one plain text, and this model reads 2 fields"),
    ],
)  # fmt: skip
def test_what_has_not_the_fields_is_refused(url: str, ask: Ask, path: str, body: Any, words: str) -> None:
    answer = ask(f"{url}{path}", body)
    assert answer.status == 422
    error = answer.json["error"]
    assert words in (error if isinstance(error, str) else error["message"])


def test_an_object_for_a_model_of_one_text(serving: Any, ask: Ask) -> None:
    with serving() as address:
        texts = ["a zebra", {"text": "a zebra"}]
        first, second = ask(f"{address}/v1/classify", {"texts": texts}).json["results"]
        assert first == second
        answer = ask(f"{address}/v1/classify", {"texts": [{"title": "a zebra"}]})
        assert answer.status == 422
        assert (
            "texts[0] has no field 'text' (it has 'title'); this model reads 'text'"
            in answer.json["error"]["message"]
        )
