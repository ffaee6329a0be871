"""Error responses: HTTP status, error code and message, in the shape of each protocol."""

from collections.abc import Mapping

from pydantic_core import to_json

CLIENT_GONE = 499  # only in the log: the client disconnected, so there is no response
HUGGING_FACE_PATHS = ("/", "/predict")
CLOSE = {"Connection": "close"}
"""Header of an error response that is sent before the request's body was read to its end."""


class ProblemError(Exception):
    """An error response.

    Args:
        status: HTTP status.
        code: error code for programs, such as `"text_too_long"`.
        message: what was found and what was expected, for people.
        param: the part of the body that the error is about.
        headers: headers of the response.
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
        """Return the JSON of the response, in the shape that clients of this path expect."""
        return problem_body(path, self.status, self.code, self.message, self.param)


def problem_body(path: str, status: int, code: str, message: str, param: str | None = None) -> bytes:
    """Return the JSON of an error response.

    The paths of Hugging Face and Flash have the message under `error`; the others follow OpenAI's error object.
    """
    if path in HUGGING_FACE_PATHS:
        return to_json({"error": message, "error_type": code})
    kinds = {401: "authentication_error", 403: "permission_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return to_json({"error": {"message": message, "type": kind, "param": param, "code": code}})


def stopping() -> ProblemError:
    """The error response of a server that is stopping."""
    return ProblemError(503, "stopping", "the server is being stopped", headers={"Retry-After": "1"})
