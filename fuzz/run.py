"""Fuzz one target: `python fuzz/run.py TARGET [-runs=200000] [options of libFuzzer]`. Stops at the first finding.

Inputs begin at `fuzz/corpus/TARGET`; what is found on the way stays in memory, findings are written to the working
directory as `crash-*`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mocae", "yaml"]):
    from targets import TARGETS


def main() -> None:
    """Fuzz the target named on the command line."""
    name, *options = sys.argv[1:] or [""]
    if name not in TARGETS:
        sys.exit(f"unknown target {name!r}. Known: {', '.join(TARGETS)}")
    corpus = Path(__file__).parent / "corpus" / name
    limits = ["-max_len=2048", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
    if not any(option.startswith("-runs=") for option in options):
        options.append("-runs=200000")
    # libFuzzer adds what it finds to the first folder: a new one, so that the seeds stay as they are.
    import tempfile

    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([sys.argv[0], *limits, *options, found, str(corpus)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
