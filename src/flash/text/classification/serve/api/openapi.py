"""The OpenAPI document, made from the table of endpoints and their Pydantic models."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from flash.core.version import __version__
from flash.text.classification.serve.api.endpoints import ENDPOINTS, Endpoint
from flash.text.classification.serve.api.schemas import InferenceProblem, ProblemResponse
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.problems import HUGGING_FACE_PATHS

DESCRIPTION = "Multi-label text classification: labels for texts, in the shapes of several clients."
PROBLEMS = {
    400: "The body is not JSON, or the header Host is missing.",
    401: "No API key, or a wrong one.",
    403: "Not allowed on this server.",
    408: "The body did not arrive in time.",
    409: "The new model cannot be used; the old one stays.",
    413: "The body is too large.",
    422: "The body does not match the schema, has too many texts, or a text is too long.",
    421: "The server does not answer for this host.",
    500: "An error in the server.",
    501: "The transfer encoding is not supported.",
    503: "The queue is full, or the server is being stopped; Retry-After says when to try again.",
    504: "The request timed out.",
}
REF = "#/components/schemas/"
Mode = Literal["validation", "serialization"]


def document(options: ServeOptions, fields: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server with these options.

    Args:
        options: the server's options.
        fields: the fields that the model reads per text; None if a text is one string.
    """
    of_errors: tuple[TypeAdapter[Any], ...] = (TypeAdapter(ProblemResponse), TypeAdapter(InferenceProblem))
    wanted: list[tuple[str, Mode, TypeAdapter[Any]]] = []
    for endpoint in ENDPOINTS:
        name = f"{endpoint.method} {endpoint.path}"
        wanted.append((f"{name} response", "serialization", endpoint.response))
        if endpoint.request is not None:
            wanted.append((f"{name} request", "validation", endpoint.request))
    wanted += [(f"problem {number}", "serialization", adapter) for number, adapter in enumerate(of_errors)]
    made, definitions = TypeAdapter.json_schemas(wanted, ref_template=f"{REF}{{model}}")
    schemas = {key: schema for (key, _), schema in made.items()}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas, options)
    components: dict[str, Any] = {"schemas": definitions.get("$defs", {})}
    if fields is not None and len(fields) > 1:
        components["schemas"] |= _of_fields(components["schemas"], fields)
    if options.api_keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "flash", "version": __version__, "description": DESCRIPTION},
        "paths": paths,
        "components": components,
    }


def _of_fields(schemas: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the schemas that differ for a model that reads several fields per text."""
    count, text = len(fields), {"type": ["string", "null"]}
    one = {
        "type": "object",
        "properties": dict.fromkeys(fields, text),
        "required": list(fields),
    }
    several = {"type": "array", "items": text, "minItems": count, "maxItems": count}
    of_parts = {
        "type": "array",
        "items": {"$ref": f"{REF}ModerationPart"},
        "minItems": count,
        "maxItems": count,
    }
    moderation = schemas["ModerationRequest"]
    parts = {**moderation["properties"]["input"], **of_parts}
    del parts["anyOf"]
    changed: dict[str, Any] = {
        "Text": one,
        "TextInList": {"anyOf": [{"$ref": f"{REF}Text"}, several]},
        "ModerationRequest": {**moderation, "properties": {**moderation["properties"], "input": parts}},
    }
    example = {field: f"The {field} of a text" for field in fields}
    examples = {
        "ClassifyRequest": {"texts": [example], "top_k": 3},
        "FlashRequest": {"session": "UUID", "payload": {"inputs": {"data": example}}},
        "InferenceRequest": {"inputs": example},
        "ModerationRequest": {"input": [{"type": "text", "text": shown} for shown in example.values()]},
    }
    for name, shown in examples.items():
        changed[name] = {**schemas[name], **changed.get(name, {}), "examples": [shown]}
    return changed


def _operation(endpoint: Endpoint, schemas: dict[str, Any], options: ServeOptions) -> dict[str, Any]:
    name = f"{endpoint.method} {endpoint.path}"
    problem = schemas["problem 1" if endpoint.path in HUGGING_FACE_PATHS else "problem 0"]
    responses = {"200": {"description": "Done.", "content": _json(schemas[f"{name} response"])}}
    for status in sorted({*endpoint.problems, 421} if options.allowed_hosts else endpoint.problems):
        if status != 401 or options.api_keys:
            responses[str(status)] = {"description": PROBLEMS[status], "content": _json(problem)}
    word = endpoint.path.strip("/").replace("/", "_").replace("v1_", "") or "infer"
    operation: dict[str, Any] = {
        "operationId": word,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "responses": responses,
    }
    if endpoint.request is not None:
        operation["requestBody"] = {"required": True, "content": _json(schemas[f"{name} request"])}
    if options.api_keys and not endpoint.open:
        operation["security"] = [{"bearer": []}, {"header": []}]
    return operation


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
