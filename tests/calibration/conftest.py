from __future__ import annotations

import pytest

from toy_router import Toy, make_toy


@pytest.fixture(scope="package")
def toy() -> Toy:
    """The toy world; never written to."""
    return make_toy()
