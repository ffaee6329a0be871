"""The API reference in a real browser: every endpoint is there, and its commands do what they say."""

import json
import shlex
from typing import Any
from urllib.request import Request, urlopen

LOADED = "document.querySelectorAll('.endpoint').length > 5"


def commands(page: Any) -> list[str]:
    found: list[str] = page.js(
        "[...document.querySelectorAll('.code pre')].map((one) => one.textContent).filter((text) => text.startsWith('curl'))"
    )
    return found


def follow(command: str, key: str = "") -> tuple[str, int]:
    """Do what curl would, and give the path and the status."""
    words = iter(shlex.split(command.replace("\\\n", " ").replace("$FLASH_API_KEY", key)))
    assert next(words) == "curl"
    url, data, method = "", None, None
    headers: dict[str, str] = {}
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(words).encode()
        elif word == "-X":
            method = next(words)
        else:
            url = word
    with urlopen(Request(url, data, headers, method=method), timeout=20) as answer:
        return "/" + url.split("/", 3)[3], answer.status


def test_every_endpoint_is_described(page: Any, url: str, ask: Any) -> None:
    page.go(f"{url}/docs")
    page.wait(LOADED)
    document = ask(f"{url}/openapi.json").json
    wanted = {
        f"{method.upper()}{path}": one["summary"]
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    }
    shown = page.js(
        "Object.fromEntries([...document.querySelectorAll('.endpoint')].map((one) =>"
        " [one.querySelector('h2').textContent, one.querySelector('.summary').textContent]))"
    )
    assert shown == wanted
    links = page.js(
        "[...document.querySelectorAll('#contents a')].map((one) => one.getAttribute('href').slice(1))"
    )
    assert len(links) == len(wanted)
    assert page.js(f"{json.dumps(links)}.every((id) => document.getElementById(id))")
    classify = page.text("#post-v1-classify")
    for word in (
        "texts",
        "list of text",
        "required",
        "top_k",
        "whole number (1 or more)",
        "number (0 to 1) or object of number (0 to 1)",
        "scores",
    ):
        assert word in classify
    for status in document["paths"]["/v1/classify"]["post"]["responses"]:
        assert status in classify


def test_its_commands_work(page: Any, url: str) -> None:
    page.go(f"{url}/docs")
    page.wait(LOADED)
    done = dict(follow(command) for command in commands(page) if "/admin/reload" not in command)
    assert set(done.values()) == {200}
    assert {"/v1/classify", "/predict", "/v1/moderations", "/info", "/"} <= set(done)


def test_its_commands_carry_the_key_where_one_is_needed(page: Any, serving: Any) -> None:
    with serving(api_keys=("secret-key-9",)) as url:
        page.go(f"{url}/docs")
        page.wait(LOADED)
        done = dict(follow(command, "secret-key-9") for command in commands(page))
        assert set(done.values()) == {200}
        assert {"/v1/classify", "/admin/reload"} <= set(done)
        assert all(("Authorization" in command) != ("/health" in command) for command in commands(page)
                   if "/v1/" in command or "/health" in command)  # fmt: skip


def test_a_command_is_copied(page: Any, url: str) -> None:
    page.go(f"{url}/docs")
    page.wait(LOADED)
    page.click("#post-v1-classify .code button")
    page.wait("document.querySelector('#said').textContent.includes('command for /v1/classify is')")


def test_the_server_is_away(page: Any, url: str) -> None:
    page.answer_with(lambda request: (503, {}, "") if request["url"].endswith("openapi.json") else None)
    page.go(f"{url}/docs")
    page.wait("!document.querySelector('#error').hidden")
    assert "The server answered 503" in page.text("#error-text")


def test_words_of_the_document_are_text(page: Any, url: str) -> None:
    hostile = "<img src=x onerror='document.hacked = 1'> and `<b>code</b>`"
    schema = {
        "type": "object", "description": hostile, "required": ["<i>a</i>"],
        "properties": {"<i>a</i>": {"type": "string", "description": hostile, "examples": ["it's <b>"]},
                       "again": {"$ref": "#/components/schemas/Loop"}},
    }  # fmt: skip
    document = {
        "openapi": "3.1.0", "info": {"title": hostile, "version": "1"},
        "components": {"schemas": {"Loop": schema}},
        "paths": {"/<b>x</b>": {"post": {
            "summary": hostile, "requestBody": {"content": {"application/json": {"schema": schema}}},
            "responses": {"200": {"description": hostile}},
        }}},
    }  # fmt: skip
    page.answer_with(
        lambda request: (200, {}, json.dumps(document)) if request["url"].endswith("openapi.json") else None
    )
    page.go(f"{url}/docs")
    page.wait("document.querySelectorAll('.endpoint').length === 1")
    assert page.js("document.querySelectorAll('main img, main i, main p b').length") == 0
    assert page.js("document.hacked === undefined")
    assert "'it'\\''s <b>'" not in page.text("main")  # JSON inside of one quoted word
    [command] = commands(page)
    assert json.loads(shlex.split(command)[-1]) == {"<i>a</i>": "it's <b>"}
