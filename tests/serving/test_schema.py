from __future__ import annotations

import pytest

from mocae.serving.app import Settings
from serving_for_tests import TinyArtifact, ask_everything, live, served


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # schemathesis draws with random
@pytest.mark.parametrize("n", [15, pytest.param(300, marks=pytest.mark.slow)])
def test_no_request_made_from_the_schema_is_a_defect_of_the_server(artifact: TinyArtifact, n: int) -> None:
    with live(served(artifact), Settings(max_tokens=4)) as url:
        asked = ask_everything(url, n)
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics"} <= asked
