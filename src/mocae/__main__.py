"""`python -m mocae` is the command `mocae`."""

from __future__ import annotations

from mocae.cli.app import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
