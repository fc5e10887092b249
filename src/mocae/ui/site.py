"""The page as an ASGI application that asks for nothing from elsewhere and keeps other sites out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from mocae.serving import Limits
from mocae.serving.lanes import Lanes
from mocae.serving.served import Served
from mocae.ui.page import THEME, build_page, style
from mocae.ui.talk import Talk

__all__ = ["build_site"]

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; "
    "form-action 'none'; base-uri 'self'; frame-ancestors 'none'"
)
"""A model can write the address of a picture, or a form; the browser is not to fetch the one or send the other."""


def build_site(
    served: Served,
    *,
    name: str,
    report: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] | None = None,
) -> ASGIApp:
    """Return the page as an application; the engine runs for as long as its lifespan lasts.

    Args:
        served: the systems.
        name: of the run.
        report: `report.json` of the run.
        limits: how much the engine takes on.
        hosts: names the page may be called by; None: any.
    """
    engine = Lanes(served, limits=limits)

    site = FastAPI(lifespan=engine.running, openapi_url=None, docs_url=None, redoc_url=None)
    gr.mount_gradio_app(
        site,
        build_page(Talk(served, engine), name=name, report=report),
        path="/",
        theme=THEME,
        css=style(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=1,
    )
    site.add_middleware(TrustedHostMiddleware, allowed_hosts=["*"] if hosts is None else list(hosts))

    @site.middleware("http")
    async def closed(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    return site
