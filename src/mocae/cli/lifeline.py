"""A process that ends with the one that started it, however that one ends."""

from __future__ import annotations

import os
import sys
import threading

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """End this process at once when its standard input ends: a pipe whose other end the parent keeps open.

    The system closes that end even when the parent is killed, on every platform. Nothing is cleaned up on the way out:
    what is unfinished is left as a kill leaves it, locks are the system's to release.
    """
    threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    source = sys.stdin.fileno()
    while os.read(source, 4096):
        pass
    os._exit(1)
