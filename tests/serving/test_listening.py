"""What a server believes of its clients."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from mocae.serving.connection import Patience
from mocae.serving.listening import listen, open_socket


def test_a_client_does_not_write_its_address_into_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, **_: made.append(self.config))

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with open_socket("127.0.0.1", 0) as opened:
        listen(app, opened, grace_s=1.0, log_level="info")
    made[0].load()
    assert not isinstance(made[0].loaded_app, ProxyHeadersMiddleware)  # it believes X-Forwarded-For, line ends and all


def test_a_system_without_a_limit_of_open_files_has_the_limit_that_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocae.serving.connection.resource", None)
    assert Patience(connections=7).most == 7
