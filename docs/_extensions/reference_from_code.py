"""Directives that write the reference of the command line and of HTTP from the code itself; links that leave `docs`."""

import io
import json
import os
import re
from contextlib import redirect_stdout, suppress
from typing import Any
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from flash.__main__ import main
from flash.text.classification.serve.api.endpoints import ENDPOINTS
from flash.text.classification.serve.api.openapi import document
from flash.text.classification.serve.options import ServeOptions


class FlashHelp(Directive):
    """The help of a command, such as `predict` or `text_classification from_csv`; of `flash` itself without words."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A block with the text."""
        words = self.arguments[0].split() if self.arguments else []
        text = io.StringIO()
        # argparse wraps at the terminal's width; the site is the same wherever it is built
        with (
            mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"}),
            redirect_stdout(text),
            suppress(SystemExit),
        ):
            main([*words, "--help"])
        return [_block(text.getvalue(), "text")]


class FlashEndpoints(Directive):
    """Each endpoint of the server: what it does, whether it needs a key, its statuses, and the schema of its body."""

    def run(self) -> list[nodes.Node]:
        """A section for each."""
        paths = document(ServeOptions(api_keys=("a key of the reference",)))["paths"]
        found: list[nodes.Node] = []
        for endpoint in ENDPOINTS:
            operation = paths[endpoint.path][endpoint.method.lower()]
            section = nodes.section(ids=[nodes.make_id(f"{endpoint.method} {endpoint.path}")])
            section += nodes.title("", "", nodes.literal("", f"{endpoint.method} {endpoint.path}"))
            key = "needs no key" if endpoint.open else "needs a key where the server has keys"
            statuses = ", ".join(sorted(operation["responses"]))
            section += nodes.paragraph("", f"{endpoint.summary}. It {key}. Statuses: {statuses}.")
            if body := operation.get("requestBody"):
                section += _block(json.dumps(body["content"]["application/json"]["schema"], indent=2), "json")
            found.append(section)
        return found


class FlashSchemas(Directive):
    """The schemas that bodies and answers refer to."""

    def run(self) -> list[nodes.Node]:
        """A block of JSON for each."""
        schemas: dict[str, Any] = document(ServeOptions())["components"]["schemas"]
        found: list[nodes.Node] = []
        for name, schema in sorted(schemas.items()):
            section = nodes.section(ids=[nodes.make_id(f"schema {name}")])
            section += nodes.title("", name)
            section += _block(json.dumps(schema, indent=2, ensure_ascii=False), "json")
            found.append(section)
        return found


def _block(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)


def _stay_on_the_site(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lead links to the repository's benchmarks, which are right where the pages are read as files, to the site's page."""
    source[0] = re.sub(r"\]\((?:\.\./)+benchmarks/README\.md", "](/explanation/benchmarks.md", source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("flash-help", FlashHelp)
    app.add_directive("flash-endpoints", FlashEndpoints)
    app.add_directive("flash-schemas", FlashSchemas)
    app.connect("source-read", _stay_on_the_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
