"""Each protocol, by its own client where it has one, against a running server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import openai
import pytest

from flash.text.classification.predictor import Predictor
from flash.text.classification.serve.api.endpoints import ENDPOINTS

Ask = Callable[..., Any]
LABELS = ["fruit", "animal", "<b>tool</b>"]
TEXT = "it tells of banana and zebra"
TEXTS = [TEXT, "", "it tells of hammer"]


@pytest.fixture(scope="module")
def expected(model_file: Path) -> np.ndarray:
    """(3, 3) probabilities of `TEXTS`."""
    return Predictor.load(model_file).probabilities(TEXTS)


@pytest.fixture
def valid() -> Callable[[str, str, Any], None]:
    """Checks an answer against the schema that its endpoint promises."""

    def check(method: str, path: str, made: Any) -> None:
        endpoint = next(one for one in ENDPOINTS if (one.method, one.path) == (method, path))
        endpoint.response.validate_python(made)

    return check


# ---- Lightning Flash ---------------------------------------------------------------------------------------------


def test_a_client_of_flash(url: str, ask: Ask, expected: np.ndarray, valid: Any) -> None:
    body = {"session": "UUID", "payload": {"inputs": {"data": TEXT}}}
    made = ask(f"{url}/predict", body).json
    valid("POST", "/predict", made)
    assert made["session"] == "UUID"
    assert list(made["result"]["outputs"]) == LABELS
    assert list(made["result"]["outputs"].values()) == expected[0].tolist()
    made = ask(f"{url}/predict", {"payload": {"inputs": {"data": TEXTS}}}).json
    assert len(made["session"]) == 36  # made up
    assert [list(row.values()) for row in made["result"]["outputs"]] == expected.tolist()
    assert ask(f"{url}/flashserve/alive").json == {"alive": True}


@pytest.mark.parametrize(
    ("output", "made"),
    [
        ("labels", ["fruit", "animal"]),
        ("classes", [0, 1]),
        (lambda probabilities: (probabilities > 0.5).sum(axis=1), 2),
    ],
    ids=["labels", "classes", "a function"],
)
def test_flashs_output_is_what_serve_was_told(serving: Any, ask: Ask, output: Any, made: Any) -> None:
    with serving(output=output) as url:
        body = {"session": "1", "payload": {"inputs": {"data": TEXT}}}
        assert ask(f"{url}/predict", body).json["result"]["outputs"] == made
        body["payload"] = {"inputs": {"data": []}}
        assert ask(f"{url}/predict", body).json["result"]["outputs"] == []


def test_logits_and_probabilities_are_lists_of_numbers(serving: Any, ask: Ask, expected: np.ndarray) -> None:
    body = {"session": "1", "payload": {"inputs": {"data": TEXTS}}}
    with serving(output="probabilities") as url:
        assert ask(f"{url}/predict", body).json["result"]["outputs"] == expected.tolist()
    with serving(output="logits") as url:
        logits = np.array(ask(f"{url}/predict", body).json["result"]["outputs"])
        assert np.allclose(1 / (1 + np.exp(-logits)), expected, atol=1e-6)


# ---- Text Embeddings Inference and Hugging Face ------------------------------------------------------------------


def test_a_client_of_text_embeddings_inference(url: str, ask: Ask, expected: np.ndarray, valid: Any) -> None:
    made = ask(f"{url}/predict", {"inputs": TEXT}).json
    valid("POST", "/predict", made)
    assert [entry["score"] for entry in made] == sorted(expected[0].tolist(), reverse=True)
    assert {entry["label"]: entry["score"] for entry in made} == dict(
        zip(LABELS, expected[0].tolist(), strict=True)
    )
    for inputs in (TEXTS, [[text] for text in TEXTS]):
        many = ask(f"{url}/predict", {"inputs": inputs, "truncate": True}).json
        valid("POST", "/predict", many)
        assert many[0] == made
        assert len(many) == 3
    raw = ask(f"{url}/predict", {"inputs": TEXT, "raw_scores": True}).json
    assert [entry["label"] for entry in raw] == [entry["label"] for entry in made]
    scores = np.array([entry["score"] for entry in raw])
    assert np.allclose(1 / (1 + np.exp(-scores)), [entry["score"] for entry in made], atol=1e-6)


def test_a_pair_of_texts_is_refused(url: str, ask: Ask) -> None:
    answer = ask(f"{url}/predict", {"inputs": [["a", "b"]]})
    assert answer.status == 422
    assert "reads no pairs" in answer.json["error"]


def test_truncate_false_refuses_nothing_of_a_model_that_reads_all(url: str, ask: Ask) -> None:
    assert ask(f"{url}/predict", {"inputs": "word " * 5_000, "truncate": False}).status == 200


@pytest.mark.parametrize("path", ["", "/predict"])
def test_hugging_faces_client(url: str, path: str, expected: np.ndarray) -> None:
    client = huggingface_hub.InferenceClient(url + path)
    made = client.text_classification(TEXT)
    assert {entry.label: entry.score for entry in made} == dict(
        zip(LABELS, expected[0].tolist(), strict=True)
    )
    assert [entry.score for entry in made] == sorted([entry.score for entry in made], reverse=True)
    best = client.text_classification(TEXT, top_k=1, function_to_apply="softmax")
    assert [entry.label for entry in best] == [made[0].label]
    logits = client.text_classification(TEXT, function_to_apply="none")
    assert logits[0].score != made[0].score


def test_hugging_faces_client_with_a_key(serving: Any) -> None:
    with serving(api_keys=("a-secret-key",)) as url:
        assert huggingface_hub.InferenceClient(url, token="a-secret-key").text_classification(TEXT)
        with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="401"):
            huggingface_hub.InferenceClient(url, token="another-key").text_classification(TEXT)


# ---- OpenAI ------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    """OpenAI's client of the server."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="not-needed", max_retries=0)


def test_openais_client(client: openai.OpenAI, expected: np.ndarray) -> None:
    made = client.moderations.create(input=TEXTS, model="omni-moderation-latest")
    assert made.model == "words"
    assert made.id.startswith("modr-")
    assert [result.flagged for result in made.results] == [True, False, True]
    first = made.results[0].model_dump()
    assert {label: first["categories"][label] for label in LABELS} == {
        "fruit": True,
        "animal": True,
        "<b>tool</b>": False,
    }
    assert [first["category_scores"][label] for label in LABELS] == expected[0].tolist()
    assert len(client.moderations.create(input=TEXT).results) == 1
    assert [model.id for model in client.models.list()] == ["words"]


def test_the_parts_of_one_input_are_one_text(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "of banana"}, {"type": "text", "text": "and zebra"}]
    made = client.moderations.create(input=parts)
    assert len(made.results) == 1
    with pytest.raises(openai.UnprocessableEntityError, match="reads texts only"):
        client.moderations.create(
            input=[*parts, {"type": "image_url", "image_url": {"url": "https://example.org/picture.png"}}]
        )


def test_openais_client_with_a_key(serving: Any) -> None:
    with serving(api_keys=("a-secret-key",)) as url:
        good = openai.OpenAI(base_url=f"{url}/v1", api_key="a-secret-key", max_retries=0)
        assert good.moderations.create(input=TEXT).results[0].flagged
        bad = openai.OpenAI(base_url=f"{url}/v1", api_key="another-key", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="An? API key is needed|an API key is needed"):
            bad.moderations.create(input=TEXT)


# ---- ours --------------------------------------------------------------------------------------------------------


def test_classify(url: str, ask: Ask, expected: np.ndarray, valid: Any) -> None:
    made = ask(f"{url}/v1/classify", {"texts": TEXTS}).json
    valid("POST", "/v1/classify", made)
    assert made["model"] == "words"
    assert [sorted(result["labels"]) for result in made["results"]] == [
        ["animal", "fruit"],
        [],
        ["<b>tool</b>"],
    ]
    for result, row in zip(made["results"], expected.tolist(), strict=True):
        assert result["scores"] == dict(zip(LABELS, row, strict=True))
        assert list(result["scores"].values()) == sorted(row, reverse=True)


def test_classify_with_thresholds_labels_and_top_k(url: str, ask: Ask) -> None:
    def results(**options: Any) -> Any:
        return ask(f"{url}/v1/classify", {"texts": [TEXT], **options}).json["results"][0]

    assert sorted(results(threshold=0)["labels"]) == sorted(LABELS)
    assert results(threshold=1)["labels"] == []
    assert results(threshold={"fruit": 1.0})["labels"] == ["animal"]
    assert list(results(top_k=1)["scores"]) == results()["labels"][:1]
    assert results(top_k=1)["labels"] == results()["labels"]
    assert results(labels=["<b>tool</b>", "animal"])["labels"] == ["animal"]
    assert set(results(labels=["animal"])["scores"]) == {"animal"}
    assert ask(f"{url}/v1/classify", {"texts": []}).json["results"] == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"texts": ["a"], "labels": ["fruits"]}, "unknown label 'fruits'; did you mean 'fruit'?"),
        ({"texts": ["a"], "threshold": {"fruits": 0.5}}, "unknown label 'fruits'"),
        ({"texts": ["a"], "threshold": 1.5}, "threshold"),
        ({"texts": "a"}, "texts: "),
        ({"texts": ["a", 5]}, "texts[1]: "),
        ({"texts": ["a"], "topk": 3}, "topk: unknown field 'topk'; did you mean 'top_k'?"),
        ({"texts": ["a"], "top_k": 0}, "top_k: "),
        ({}, "texts: "),
        ([], "the body: "),
        ("text", "the body: "),
    ],
)
def test_what_does_not_fit_is_said_where(url: str, ask: Ask, body: Any, sentence: str) -> None:
    answer = ask(f"{url}/v1/classify", body)
    assert answer.status == 422
    assert sentence in answer.json["error"]["message"]


def test_exclusive_labels(serving: Any, ask: Ask, single_label_file: Path, valid: Any) -> None:
    with serving(single_label_file) as url:
        made = ask(f"{url}/v1/classify", {"texts": [TEXT, "it tells of hammer"]}).json["results"]
        assert [len(result["labels"]) for result in made] == [1, 1]
        assert made[1]["labels"] == ["<b>tool</b>"]
        assert sum(made[0]["scores"].values()) == pytest.approx(1, abs=1e-5)
        refused = ask(f"{url}/v1/classify", {"texts": [TEXT], "threshold": 0.5})
        assert (refused.status, refused.json["error"]["code"]) == (422, "no_thresholds")
        info = ask(f"{url}/info").json
        valid("GET", "/info", info)
        assert info["multi_label"] is False
        assert {entry["threshold"] for entry in info["labels"]} == {None}


# ---- about the server --------------------------------------------------------------------------------------------


def test_info(url: str, ask: Ask, model_file: Path, valid: Any) -> None:
    info = ask(f"{url}/info").json
    valid("GET", "/info", info)
    thresholds = Predictor.load(model_file).thresholds.tolist()
    assert info["labels"] == [
        {"label": label, "threshold": threshold} for label, threshold in zip(LABELS, thresholds, strict=True)
    ]
    assert (info["model"], info["backbone"], info["max_length"]) == ("words", "linear", None)


def test_thresholds_in_place_of_the_models_own(serving: Any, ask: Ask) -> None:
    with serving(thresholds={"fruit": 1.0}) as url:
        assert ask(f"{url}/v1/classify", {"texts": [TEXT]}).json["results"][0]["labels"] == ["animal"]
        assert ask(f"{url}/info").json["labels"][0]["threshold"] == 1.0


@pytest.mark.parametrize(("path", "made"), [("/health", "ok"), ("/ready", "ok")])
def test_probes(url: str, ask: Ask, path: str, made: str, valid: Any) -> None:
    answer = ask(url + path)
    valid("GET", path, answer.json)
    assert answer.json == {"status": made}
    head = ask(url + path, method="HEAD")
    assert (head.status, head.content) == (200, b"")


def test_metrics_count_requests_batches_and_labels(serving: Any, ask: Ask) -> None:
    with serving() as url:
        ask(f"{url}/v1/classify", {"texts": TEXTS})
        ask(f"{url}/v1/classify", b"{")
        ask(f"{url}/not/there")
        ask(f"{url}/health", method="DELETE")
        text = ask(f"{url}/metrics").content.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines['flash_requests_total{method="POST",path="/v1/classify",status="200"}']) == 1
    assert float(lines['flash_requests_total{method="POST",path="/v1/classify",status="400"}']) == 1
    assert float(lines['flash_requests_total{method="GET",path="other",status="404"}']) == 1
    assert float(lines['flash_requests_total{method="other",path="/health",status="405"}']) == 1
    assert float(lines["flash_texts_total"]) == 3
    assert float(lines['flash_predicted_labels_total{label="fruit"}']) == 1
    assert float(lines["flash_batch_texts_count"]) == 1
    assert float(lines["flash_waiting_texts"]) == 0
    assert float(lines['flash_request_seconds_count{path="/v1/classify"}']) == 2
    assert 'flash_model_info{backbone="linear",model="words"' in text
    assert "process_resident_memory_bytes" in text
