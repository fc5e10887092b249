"""Why a request is not served; `mocae.serving.wire.failure` makes a status of each."""

from __future__ import annotations

from mocae.errors import ServingError

__all__ = ["Closed", "Lost", "Overloaded", "TimedOut"]


class Overloaded(ServingError):
    """The queue is full.

    Args:
        message: what to tell the client.
        retry_after_s: when there should be room again.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Lost(ServingError):
    """What all running answers are written from could not be kept, mostly for lack of memory."""


class TimedOut(ServingError):
    """The answer was not there in time."""


class Closed(ServingError):
    """The server is shutting down; another one may be there in `retry_after_s`."""

    retry_after_s = 5.0

    def __init__(self, message: str = "the server is shutting down") -> None:
        super().__init__(message)
