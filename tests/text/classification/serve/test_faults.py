"""What goes wrong between a server and its clients: each is answered with a status and a sentence, and harms nobody else."""

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest

from flash.text.classification.predictor import Predictor
from flash.text.classification.serve import ServeOptions, logs, running
from flash.text.classification.serve.served_model import ServedModel

Ask = Callable[..., Any]
KEY = "a-secret-key-of-the-team"


class Panic(BaseException):
    """As a panic in Rust arrives in Python: no `Exception`."""


class Held:
    """A backbone that answers when it is let go; a text of "fail" is too much for it, one of "panic" far too much."""

    def __init__(self) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        self.go.set()
        self.texts: list[str] = []

    def logits(self, texts: pa.Array) -> np.ndarray:
        self.began.set()
        assert self.go.wait(20)
        words = texts.to_pylist()
        if "fail" in words:
            raise RuntimeError("an inside that nobody outside should see")
        if "panic" in words:
            raise Panic("an inside that nobody outside should see")
        self.texts += words
        return np.zeros((len(words), 2), np.float32)


@pytest.fixture
def held() -> Iterator[Held]:
    """A backbone that a test can stop."""
    backbone = Held()
    yield backbone
    backbone.go.set()


@contextmanager
def around(backbone: Any, **options: Any) -> Iterator[str]:
    """A server around a backbone."""
    given = ServeOptions(**{"port": 0, "log_level": "error", **options})
    predictor = Predictor(backbone, ["one", "two"], multi_label=True, thresholds=np.full(2, 0.5, np.float32))
    model = ServedModel.of(predictor, given)
    with running(model, given) as url:
        yield url


def until(condition: Callable[[], bool]) -> None:
    """Wait for what will be."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within 20 s"
        time.sleep(0.01)


def waiting(ask: Ask, url: str) -> float:
    """Texts in the queue."""
    lines = ask(f"{url}/metrics").content.decode().splitlines()
    return float(next(line for line in lines if line.startswith("flash_waiting_texts ")).split()[1])


# ---- too much ----------------------------------------------------------------------------------------------------


def test_a_full_queue_is_503_at_once_and_says_when_to_come_again(held: Held, ask: Ask) -> None:
    with around(held, max_waiting=4, max_texts=4) as url, ThreadPoolExecutor() as pool:
        held.began.clear()
        held.go.clear()
        first = pool.submit(ask, f"{url}/v1/classify", {"texts": ["computed"]})
        assert held.began.wait(20)
        second = pool.submit(ask, f"{url}/v1/classify", {"texts": ["a", "b", "c"]})
        until(lambda: waiting(ask, url) == 3)
        refused = ask(f"{url}/v1/classify", {"texts": ["d", "e"]})
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert "3 texts wait already" in refused.json["error"]["message"]
        assert ask(f"{url}/health").status == 200  # it is busy, not ill
        assert ask(f"{url}/predict", {"inputs": ["d", "e"]}).json["error_type"] == "overloaded"
        held.go.set()
        assert first.result().status == second.result().status == 200
    assert "d" not in held.texts


def test_no_answer_in_time_is_504_and_what_waits_is_not_computed(held: Held, ask: Ask) -> None:
    with around(held, request_timeout=0.3) as url, ThreadPoolExecutor() as pool:
        held.began.clear()
        held.go.clear()
        first = pool.submit(ask, f"{url}/v1/classify", {"texts": ["computed"]})
        assert held.began.wait(20)
        late = ask(f"{url}/v1/classify", {"texts": ["too late"]})
        assert late.status == 504
        assert "no answer within 0.3 s" in late.json["error"]["message"]
        assert first.result().status == 504
        held.go.set()
        assert ask(f"{url}/v1/classify", {"texts": ["next"]}).status == 200
    assert "too late" not in held.texts


def test_a_client_that_goes_away_frees_its_place(held: Held, ask: Ask) -> None:
    with around(held) as url, ThreadPoolExecutor() as pool:
        held.began.clear()
        held.go.clear()
        first = pool.submit(ask, f"{url}/v1/classify", {"texts": ["computed"]})
        assert held.began.wait(20)
        address = urlsplit(url)
        gone = http.client.HTTPConnection(address.hostname or "", address.port)
        gone.request("POST", "/v1/classify", json.dumps({"texts": ["nobody waits for this"]}))
        until(lambda: waiting(ask, url) == 1)
        gone.close()
        until(lambda: waiting(ask, url) == 0)
        held.go.set()
        assert first.result().status == 200
    assert "nobody waits for this" not in held.texts


@pytest.mark.parametrize("chunked", [False, True], ids=["told by its head", "found while it comes"])
def test_a_body_that_is_too_large_is_413(held: Held, chunked: bool) -> None:
    with around(held, max_body=2_000) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        body: Any = json.dumps({"texts": ["x" * 3_000]}).encode()
        connection.request(
            "POST",
            "/v1/classify",
            iter([body[:1_500], body[1_500:]]) if chunked else body,
            encode_chunked=chunked,
            headers={"Transfer-Encoding": "chunked"} if chunked else {},
        )
        answer = connection.getresponse()
        assert answer.status == 413
        assert "at most 2,000 are read" in json.load(answer)["error"]["message"]
        connection.close()
    assert "x" * 3_000 not in held.texts


def test_too_many_texts_and_a_text_that_is_too_long_are_422(held: Held, ask: Ask) -> None:
    with around(held, max_texts=3, max_text_length=10) as url:
        many = ask(f"{url}/v1/classify", {"texts": ["a"] * 7})
        assert many.status == 422
        assert "texts has 7 texts; at most 3" in many.json["error"]["message"]
        assert "send 3 requests" in many.json["error"]["message"]
        long = ask(f"{url}/v1/classify", {"texts": ["a", "b" * 11]})
        assert long.status == 422
        assert long.json["error"]["param"] == "texts[1]"
        assert "texts[1] has 11 characters; at most 10" in long.json["error"]["message"]
        assert ask(f"{url}/v1/classify", {"texts": ["b" * 11]}).json["error"]["param"] == "texts[0]"
        assert "inputs has 11 characters" in ask(f"{url}/predict", {"inputs": "b" * 11}).json["error"]
        assert ask(f"{url}/v1/moderations", {"input": "b" * 11}).json["error"]["code"] == "text_too_long"
        assert ask(f"{url}/v1/classify", {"texts": ["b" * 10]}).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": [1] * 400_000}),
        ("/predict", {"inputs": [["a"]] * 290_000}),
        ("/predict", {"inputs": [[1] * 400_000]}),
        ("/v1/moderations", {"input": [1] * 400_000}),
        ("/v1/classify", {"texts": [1] * 400_000}),
        ("/v1/classify", {str(number): 1 for number in range(150_000)}),
        ("/v1/classify", {"texts": ["a"], "labels": ["b" * 1_900_000]}),
        ("/v1/classify", {"texts": ["a"], "threshold": {"b" * 1_900_000: 0.5}}),
        ("/v1/classify", {"texts": ["a"], "b" * 1_900_000: 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value))[:8],
)
def test_a_large_body_that_is_wrong_is_a_short_answer(url: str, ask: Ask, path: str, body: Any) -> None:
    answer = ask(url + path, body)
    assert answer.status == 422
    assert len(answer.content) < 1_000


# ---- what is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"texts": ["\\ud800"]}', b"[" * 10_000, b'{"texts": [NaN', b"\x00"],
    ids=["nothing", "half", "no UTF-8", "half a surrogate pair", "deep", "NaN", "NUL"],
)
@pytest.mark.parametrize("path", ["/v1/classify", "/predict", "/v1/moderations", "/"])
def test_what_is_no_json_is_400(url: str, ask: Ask, path: str, body: bytes) -> None:
    answer = ask(url + path, body)
    assert answer.status == 400
    error = answer.json["error"]
    assert "the body is no JSON" in (error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "\u202eright to left",
        "a\u0301" * 500,
        "👩‍👩‍👧‍👦" * 50,
        "\ufeff",
        "<script>",
        "\\u0000",
        "\U0010ffff",
    ],
)
def test_any_text_is_answered(url: str, ask: Ask, text: str) -> None:
    answer = ask(f"{url}/v1/classify", {"texts": [text]})
    assert answer.status == 200
    assert len(answer.json["results"][0]["scores"]) == 3


def test_a_model_that_fails_is_500_without_its_inside(held: Held, ask: Ask) -> None:
    with around(held) as url:
        answer = ask(f"{url}/v1/classify", {"texts": ["fail"]})
        assert answer.status == 500
        assert b"inside" not in answer.content
        assert b"Traceback" not in answer.content
        assert ask(f"{url}/v1/classify", {"texts": ["next"]}).status == 200


def test_a_panic_of_the_model_is_500_and_the_end_of_the_server(held: Held, ask: Ask) -> None:
    stream = io.StringIO()
    with around(held) as url, ThreadPoolExecutor() as pool:
        logs.configure("error", stream)
        held.began.clear()
        held.go.clear()
        first = pool.submit(ask, f"{url}/v1/classify", {"texts": ["panic"]})
        assert held.began.wait(20)
        second = pool.submit(ask, f"{url}/v1/classify", {"texts": ["waits"]})
        until(lambda: waiting(ask, url) == 1)
        held.go.set()
        for answer in (first.result(), second.result()):
            assert answer.status == 500
            assert b"inside" not in answer.content
        until(lambda: refused(url))
    (line,) = [json.loads(one) for one in stream.getvalue().splitlines()]
    assert line["event"] == "the thread of the model ended; so does this server"
    assert "Panic" in line["traceback"]


def refused(url: str) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_json_has_no_number_for_is_null(held: Held, ask: Ask) -> None:
    output = lambda probabilities: [float("nan")] * len(probabilities)  # noqa: E731
    with around(held, output=output) as url:
        answer = ask(f"{url}/predict", {"payload": {"inputs": {"data": "a"}}})
        assert answer.json["result"]["outputs"] is None


def test_wrong_paths_and_methods(url: str, ask: Ask) -> None:
    nothing = ask(f"{url}/v1/clasify", {"texts": []})
    assert (nothing.status, nothing.json["error"]["code"]) == (404, "not_found")
    wrong = ask(f"{url}/v1/classify")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert "only to POST" in wrong.json["error"]["message"]
    assert ask(f"{url}/predict", method="PUT").json["error_type"] == "method_not_allowed"
    for strange in ("/..%2f..%2fetc/passwd", "/static/../index.html", "//", "/%00", "/static/"):
        assert ask(url + strange).status in (400, 404)


# ---- who may -----------------------------------------------------------------------------------------------------


def test_keys_let_in_by_both_headers_and_health_is_open(serving: Any, ask: Ask) -> None:
    with serving(api_keys=("another-key-of-the-team", KEY)) as url:
        body = {"texts": ["a"]}
        assert ask(f"{url}/v1/classify", body, Authorization=f"Bearer {KEY}").status == 200
        assert ask(f"{url}/v1/classify", body, Authorization=f"bearer {KEY}").status == 200
        assert ask(f"{url}/v1/classify", body, X_API_Key=KEY).status == 200
        assert ask(f"{url}/v1/classify", body, X_API_Key="another-key-of-the-team").status == 200
        for headers in (
            {},
            {"Authorization": "Bearer "},
            {"Authorization": f"Basic {KEY}"},
            {"X_API_Key": KEY[:-1]},
            {"X_API_Key": f"{KEY}, another-key-of-the-team"},
        ):
            refused = ask(f"{url}/v1/classify", body, **headers)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert refused.json["error"]["type"] == "authentication_error"
            assert ("this server does not know" in refused.json["error"]["message"]) == bool(headers)
            assert KEY.encode() not in refused.content
        for path in ("/health", "/ready", "/flashserve/alive", "/", "/docs", "/openapi.json"):
            assert ask(url + path).status == 200
        for path in ("/info", "/metrics", "/v1/models", "/not/there"):
            assert ask(url + path).status == 401
        assert ask(f"{url}/", {"inputs": "a"}).status == 401
        assert ask(f"{url}/admin/reload", b"").status == 401


def test_reload_needs_keys(url: str, ask: Ask) -> None:
    answer = ask(f"{url}/admin/reload", b"")
    assert answer.status == 403
    assert "SIGHUP" in answer.json["error"]["message"]


def test_pages_of_others_may_ask_only_if_listed(serving: Any, ask: Ask, url: str) -> None:
    origin = {"Origin": "https://example.org"}
    assert "Access-Control-Allow-Origin" not in ask(f"{url}/info", **origin).headers
    with serving(cors_origins=("https://example.org",), api_keys=(KEY,)) as listed:
        before = ask(
            f"{listed}/v1/classify",
            method="OPTIONS",
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="authorization,content-type",
            **origin,
        )
        assert before.status == 200
        assert before.headers["Access-Control-Allow-Origin"] == "https://example.org"
        refused = ask(f"{listed}/v1/classify", {"texts": []}, **origin)
        assert refused.status == 401
        other = ask(f"{listed}/health", Origin="https://example.com")
        assert "Access-Control-Allow-Origin" not in other.headers


def test_the_page_is_guarded_by_its_headers(url: str, ask: Ask) -> None:
    for path in ("/", "/docs"):
        headers = ask(url + path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert ask(f"{url}/v1/classify", {"texts": []}).headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in ask(f"{url}/health").headers


# ---- what is written ---------------------------------------------------------------------------------------------


def with_log(act: Callable[[], Any], count: int = 1) -> list[dict[str, Any]]:
    """The lines of the log on `count` requests that `act` makes; call it while the server runs."""
    stream = io.StringIO()
    logs.configure("info", stream)

    def lines() -> list[dict[str, Any]]:
        made = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [line for line in made if line["event"] == "request"]

    act()
    until(lambda: len(lines()) >= count)
    return lines()


def test_a_request_is_one_line_without_its_text(serving: Any, ask: Ask) -> None:
    with serving() as url:
        text = "a private matter"

        def act() -> None:
            ask(f"{url}/v1/classify", {"texts": [text, text]}, X_Request_ID="from-a-proxy")
            ask(f"{url}/v1/classify", {"texts": text})

        first, second = with_log(act, 2)
    assert first["level"] == "info"
    assert (first["id"], first["method"], first["path"]) == ("from-a-proxy", "POST", "/v1/classify")
    assert (first["status"], first["texts"], second["status"]) == (200, 2, 422)
    assert first["milliseconds"] > 0
    assert text not in json.dumps([first, second])


def test_texts_are_logged_if_asked_for(serving: Any, ask: Ask) -> None:
    with serving(log_texts=True) as url:
        (line,) = with_log(lambda: ask(f"{url}/predict", {"inputs": "to be seen"}))
    assert line["shown"] == ["to be seen"]


def test_an_id_is_passed_through_or_made_up(url: str, ask: Ask) -> None:
    assert ask(f"{url}/health", X_Request_ID="abc-123").headers["X-Request-ID"] == "abc-123"
    made = {ask(f"{url}/health").headers["X-Request-ID"] for _ in range(3)}
    assert len(made) == 3
    for strange in ("x" * 200, "with space", 'quote"\x7f'):
        assert ask(f"{url}/health", X_Request_ID=strange).headers["X-Request-ID"] != strange


def test_a_path_makes_no_line_of_its_own(serving: Any, ask: Ask) -> None:
    with serving() as url:
        (line,) = with_log(lambda: ask(f"{url}/a%0a%7b%22level%22%3a%22error%22%7d{'x' * 500}"))
    assert line["status"] == 404
    assert len(line["path"]) == 200


def test_a_socket_that_says_no_http_harms_nobody(url: str, ask: Ask) -> None:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http \r\n\r\n")
        assert b" 400 " in connection.recv(1_000)
    assert ask(f"{url}/health").status == 200
