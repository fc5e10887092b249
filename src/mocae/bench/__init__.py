"""The benchmark: a base model, its experts and their rivals side by side in one run, as ratios to the base."""

from mocae.bench.result import Benchmark, Row
from mocae.bench.run import run_bench
from mocae.bench.shapes import SHAPES, Shape, load_shape
from mocae.bench.systems import SYSTEMS

__all__ = ["SHAPES", "SYSTEMS", "Benchmark", "Row", "Shape", "load_shape", "run_bench"]
