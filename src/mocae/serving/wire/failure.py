"""Every error as OpenAI clients read it: a status, and a body with message, type, param and code. No traceback."""

from __future__ import annotations

import logging
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from mocae.errors import ConfigError, DataError, MocaeError, PluginError
from mocae.serving.errors import Closed, Overloaded, TimedOut
from mocae.serving.wire.responses import ErrorBody, ErrorDetail

__all__ = ["ApiError", "as_api_error", "error_body", "invalid", "new_app"]

logger = logging.getLogger(__name__)

_INVALID = "invalid_request_error"
_SHOWN = 200
_BRIEF = reprlib.Repr()
"""Writes a value of any size in little time."""
_BRIEF.maxstring = _BRIEF.maxother = _SHOWN

_KNOWN: Mapping[type[MocaeError], tuple[int, str, str]] = {
    PluginError: (404, _INVALID, "model_not_found"),
    ConfigError: (400, _INVALID, "invalid_value"),
    DataError: (400, _INVALID, "invalid_value"),
    Overloaded: (429, "rate_limit_error", "queue_full"),
    TimedOut: (504, "timeout_error", "timeout"),
    Closed: (503, "server_error", "shutting_down"),
}
"""What a client is told its own mistakes and the server's state with: status, type, code."""


class ApiError(MocaeError):
    """A response that is an error.

    Args:
        status: HTTP status.
        message: what was received, and what is accepted.
        kind: the error's type.
        param: the field it is about.
        code: a word for programs.
        headers: more headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = _INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message, param = _encodable(message), param and _encodable(param)
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))

    def response(self) -> Response:
        """Return the response."""
        return Response(self.body.model_dump_json(), self.status, self.headers, "application/json")


def invalid(param: str, message: str) -> ApiError:
    """Return the refusal of a field's value."""
    return ApiError(400, message, param=param, code="invalid_value")


def as_api_error(error: Exception, *, param: str | None = None) -> ApiError:
    """Return what a client is told about an error; a defect of ours is logged and told as 500 without details."""
    if isinstance(error, ApiError):
        return error
    known = next((_KNOWN[kind] for kind in _KNOWN if isinstance(error, kind)), None)
    if known is None:
        logger.error("a request failed", exc_info=error)
        message = "the server failed on this request; its log says why"
        return ApiError(500, message, kind="server_error", code="internal")
    status, kind, code = known
    wait = getattr(error, "retry_after_s", None)
    headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
    param = "model" if status == 404 and param is None else param
    return ApiError(status, str(error), kind=kind, param=param, code=code, headers=headers)


def _encodable(text: str) -> str:
    """Return a text with halves of surrogate pairs, which JSON can hold and UTF-8 cannot, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def error_body(error: Exception) -> str:
    """Return the body alone, for a stream that has begun."""
    return as_api_error(error).body.model_dump_json()


def new_app(responses: Mapping[int | str, dict[str, Any]] | None = None, **about: Any) -> FastAPI:
    """Return an application all of whose errors leave in the one shape.

    Args:
        responses: of every route, for the schema, beside the error that each may answer with.
        about: title, description and the like, as FastAPI takes them.
    """

    async def ours(_: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    async def malformed(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _malformed(error.errors()).response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 400:  # FastAPI's, of a body that its JSON reader gave up on
            return ApiError(400, "the body is not JSON in UTF-8, or nested too deeply", code="invalid_json").response()
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_body")
        return ApiError(error.status_code, str(error.detail), code=code, headers=error.headers).response()

    return FastAPI(
        docs_url=None,  # the pages load their scripts from elsewhere
        redoc_url=None,
        # A default takes the place of FastAPI's own validation error, which is answered as 400 in the one shape.
        responses={"default": {"model": ErrorBody, "description": "an error"}, **(responses or {})},
        exception_handlers={
            MocaeError: ours,
            RequestValidationError: malformed,
            HTTPException: http,
            Exception: ours,
        },
        **about,
    )


def _malformed(problems: Sequence[Any]) -> ApiError:
    """Return the first problem of a body, said in one sentence."""
    problem = problems[0]
    # Parts that are no field and no index name pydantic's own validators.
    where = [str(part) for part in problem["loc"] if part != "body" and (isinstance(part, int) or part.isidentifier())]
    if problem["type"] == "json_invalid":
        reason = (problem.get("ctx") or {}).get("error", "not JSON")
        return ApiError(400, f"the body is not JSON: {reason}", code="invalid_json")
    param = ".".join(where)[:_SHOWN] or None
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"{param}: this field is not known here", param=param, code="unknown_parameter")
    if problem["type"] == "missing":
        message = f"{param}: missing" if param else "the body is missing; send JSON"
        return ApiError(400, message, param=param, code="missing_required_parameter")
    got = _BRIEF.repr(problem.get("input"))
    shown = got if len(got) <= _SHOWN else f"{got[:_SHOWN]}..."
    return ApiError(400, f"{param or 'body'}: {problem['msg']}, got {shown}", param=param, code="invalid_value")
