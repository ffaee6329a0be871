"""The OpenAPI document: valid, whole, and true to the server; requests made up from it find no 500."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from flash.text.classification.serve.api.endpoints import ENDPOINTS
from flash.text.classification.serve.api.openapi import document
from flash.text.classification.serve.options import ServeOptions

KEY = "a-secret-key-of-the-team"


def test_every_endpoint_is_described_with_examples_for_what_it_takes(
    url: str, ask: Callable[..., Any]
) -> None:
    described = ask(f"{url}/openapi.json").json
    assert described == json.loads(json.dumps(document(ServeOptions(allowed_hosts=("127.0.0.1",)))))
    for endpoint in ENDPOINTS:
        operation = described["paths"][endpoint.path][endpoint.method.lower()]
        assert operation["summary"] == endpoint.summary
        assert ("requestBody" in operation) == (endpoint.request is not None)
    text = json.dumps(described)
    for name in set(json.dumps(described).split('"#/components/schemas/')[1:]):
        assert name.split('"')[0] in described["components"]["schemas"], text
    assert "securitySchemes" not in described["components"]
    assert "bearer" in document(ServeOptions(api_keys=(KEY,)))["components"]["securitySchemes"]


def test_a_text_of_several_fields_is_described_as_such(model_of_two: Path, serving: Any, ask: Any) -> None:
    with serving(model_of_two) as url:
        described = ask(f"{url}/openapi.json").json
        schemas = described["components"]["schemas"]
        assert schemas["Text"]["required"] == ["title", "body"]
        assert {name: one["type"] for name, one in schemas["Text"]["properties"].items()} == {
            "title": ["string", "null"], "body": ["string", "null"]
        }  # fmt: skip
        assert "type" not in schemas["TextInList"]
        assert schemas["ModerationRequest"]["properties"]["input"]["minItems"] == 2
        names = {"ClassifyRequest": "/v1/classify", "FlashRequest": "/predict", "InferenceRequest": "/predict",
                 "ModerationRequest": "/v1/moderations"}  # fmt: skip
        for name, path in names.items():
            assert ask(url + path, schemas[name]["examples"][0]).status == 200


@pytest.mark.filterwarnings("ignore")  # schemathesis' own
@pytest.mark.parametrize("model", ["model_file", "model_of_two"])
def test_no_request_that_the_document_allows_or_forbids_is_a_500(
    serving: Callable[..., Any], model: str, request: pytest.FixtureRequest
) -> None:
    with serving(request.getfixturevalue(model), api_keys=(KEY,)) as url:
        for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()

            @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def check(case: Any) -> None:
                # every check but one: no schema can say which labels this model has
                case.call_and_validate(
                    headers={"Authorization": f"Bearer {KEY}"},
                    excluded_checks=[positive_data_acceptance],
                    timeout=300,  # a machine may be busy with much else
                )

            check()
