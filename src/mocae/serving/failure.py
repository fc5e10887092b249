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
from mocae.serving.schemas import ErrorBody, ErrorDetail

__all__ = ["ApiError", "as_api_error", "error_body", "install"]

logger = logging.getLogger(__name__)

_INVALID = "invalid_request_error"
_SHOWN = 200
_BRIEF = reprlib.Repr()
"""Writes a value of any size in little time."""
_BRIEF.maxstring = _BRIEF.maxother = _SHOWN


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


def as_api_error(error: Exception, *, param: str | None = None) -> ApiError:
    """Return what a client is told about an error; a defect of ours is logged and told as 500 without details."""
    if isinstance(error, ApiError):
        return error
    message = str(error)
    if isinstance(error, PluginError):
        return ApiError(404, message, param=param or "model", code="model_not_found")
    if isinstance(error, ConfigError | DataError):
        return ApiError(400, message, param=param, code="invalid_value")
    if isinstance(error, Overloaded):
        wait = {"Retry-After": str(math.ceil(error.retry_after_s))}
        return ApiError(429, message, kind="rate_limit_error", code="queue_full", headers=wait)
    if isinstance(error, TimedOut):
        return ApiError(504, message, kind="timeout_error", code="timeout")
    if isinstance(error, Closed):
        return ApiError(503, message, kind="server_error", code="shutting_down", headers={"Retry-After": "5"})
    logger.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed on this request; its log says why", kind="server_error", code="internal")


def _encodable(text: str) -> str:
    """Return a text with halves of surrogate pairs, which JSON can hold and UTF-8 cannot, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def error_body(error: Exception) -> str:
    """Return the body alone, for a stream that has begun."""
    return as_api_error(error).body.model_dump_json()


def install(app: FastAPI) -> None:
    """Let every error of an app leave in the one shape, and its schema say so."""

    async def ours(_: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error.errors()).response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 400:  # FastAPI's, of a body that its JSON reader gave up on
            return ApiError(400, "the body is not JSON in UTF-8, or nested too deeply", code="invalid_json").response()
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_body")
        return ApiError(error.status_code, str(error.detail), code=code, headers=error.headers).response()

    app.add_exception_handler(MocaeError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, ours)
    _without_422(app)


def _without_422(app: FastAPI) -> None:
    """Take FastAPI's own validation error out of the schema: it is answered as 400 in the one shape."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _invalid(problems: Sequence[Any]) -> ApiError:
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
