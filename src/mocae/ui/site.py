"""The page as an ASGI application that asks for nothing from elsewhere and keeps other sites out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mocae.serving import Limits
from mocae.serving.lanes import Lanes
from mocae.serving.served import Served
from mocae.ui.page import THEME, build_page, style
from mocae.ui.talk import Talk

__all__ = ["build_site"]

_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; "
    b"form-action 'none'; base-uri 'self'; frame-ancestors 'none'"
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

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.close)

    site = FastAPI(lifespan=running, openapi_url=None, docs_url=None, redoc_url=None)
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
    return _Closed(TrustedHostMiddleware(site, list(hosts) if hosts is not None else ["*"]))


class _Closed:
    """ASGI middleware that lets a page load from its own server alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self._app(scope, receive, told)
