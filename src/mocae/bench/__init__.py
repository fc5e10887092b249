"""The benchmark: a base model, its experts and their rivals side by side in one run, as ratios to the base."""

from mocae.bench.result import Benchmark, Row
from mocae.bench.run import SYSTEMS, run_bench
from mocae.bench.shapes import SHAPES, Shape, load_shape

__all__ = ["SHAPES", "SYSTEMS", "Benchmark", "Row", "Shape", "load_shape", "run_bench"]
