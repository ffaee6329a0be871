"""Why a request is not answered: a status, a word for programs, and a sentence for people, as each protocol has it."""

from collections.abc import Mapping

from pydantic_core import to_json

CLIENT_GONE = 499  # in the log, where nobody is there to be answered
HUGGING_FACE_PATHS = ("/", "/predict")
CLOSE = {"Connection": "close"}
"""The header of an answer to a request whose rest is not read."""


class ProblemError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        code: a word for programs, such as `"text_too_long"`.
        message: a sentence for people: what was found, and what was expected.
        param: the part of the body that it is about.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = dict(headers or {})

    def body(self, path: str) -> bytes:
        """The JSON of the answer, as the clients of a path read it."""
        return problem_body(path, self.status, self.code, self.message, self.param)


def problem_body(path: str, status: int, code: str, message: str, param: str | None = None) -> bytes:
    """The JSON of an error response.

    Hugging Face's and Flash's paths have a sentence under `error`, the others what OpenAI has.
    """
    if path in HUGGING_FACE_PATHS:
        return to_json({"error": message, "error_type": code})
    kinds = {401: "authentication_error", 403: "permission_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return to_json({"error": {"message": message, "type": kind, "param": param, "code": code}})


def stopping() -> ProblemError:
    """Why a server that ends does not answer."""
    return ProblemError(503, "stopping", "the server is being stopped", headers={"Retry-After": "1"})
