"""Print code lines (without blanks, comments and docstrings) by package; exit status 1 while a goal is missed."""

import ast
import io
import sys
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import grimp

ROOT = Path(__file__).resolve().parent.parent
GOAL_SRC, GOAL_ALL = 16_500, 19_000
GOAL_FUNCTION_P95, GOAL_MODULE, GOAL_FOLDER = 40, 350, 20
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


class ModuleSize(NamedTuple):
    """The size of one file; `functions` are the lengths of its functions, docstrings and comments included."""

    path: Path
    code: int
    lines: int
    functions: list[int]


def measure(path: Path) -> ModuleSize:
    """Return the size of one Python file."""
    source = path.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return ModuleSize(path, len(code), len(source.splitlines()), functions)


def import_cycle(package: str) -> list[str]:
    """Return the modules of one import cycle, empty where there is none; imports for types do not count."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    try:
        TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def packages(sizes: list[ModuleSize], source: Path) -> dict[str, list[ModuleSize]]:
    """Return the files of each package below a source folder; `.` holds those beside the packages."""
    grouped: dict[str, list[ModuleSize]] = {}
    for size in sizes:
        parts = size.path.relative_to(source).parts
        grouped.setdefault(parts[1] if len(parts) > 2 else ".", []).append(size)
    return grouped


def check(label: str, value: int, goal: int) -> bool:
    """Print a figure beside its goal; return whether the goal is met."""
    print(f"{label:32}{value:7,}   goal {goal:,}{'' if value <= goal else ': missed'}")
    return value <= goal


def main() -> int:
    """Print the tables; return 0 where every goal is met, 1 otherwise."""
    sources = [ROOT / "src", *sorted(path for path in ROOT.glob("plugins/*/src") if path.is_dir())]
    by_source = {source: [measure(path) for path in sorted(source.rglob("*.py"))] for source in sources}
    for source, sizes in by_source.items():
        print(f"{source.relative_to(ROOT)}\n  {'package':14}{'code':>7}{'lines':>8}{'files':>7}")
        grouped = packages(sizes, source)
        for name, files in sorted(grouped.items(), key=lambda item: -sum(size.code for size in item[1])):
            print(f"  {name:14}{sum(s.code for s in files):7}{sum(s.lines for s in files):8}{len(files):7}")
    everything = [size for sizes in by_source.values() for size in sizes]
    functions = sorted(length for size in everything for length in size.functions)
    folders: dict[Path, int] = {}
    for size in everything:
        folders[size.path.parent] = folders.get(size.path.parent, 0) + 1
    long_modules = [size for size in everything if size.lines > GOAL_MODULE]
    full_folders = [path for path, count in folders.items() if count > GOAL_FOLDER]
    cycle = import_cycle("mocae")
    print()
    met = [
        check("code lines, src", sum(size.code for size in by_source[ROOT / "src"]), GOAL_SRC),
        check("code lines, src and plugins", sum(size.code for size in everything), GOAL_ALL),
        check("p95 of function length", functions[int(0.95 * len(functions))], GOAL_FUNCTION_P95),
        check(f"modules over {GOAL_MODULE} lines", len(long_modules), 0),
        check(f"folders over {GOAL_FOLDER} files", len(full_folders), 0),
        check("import cycles", bool(cycle), 0),
    ]
    for size in long_modules:
        print(f"  {size.path.relative_to(ROOT)}: {size.lines} lines")
    for path in full_folders:
        print(f"  {path.relative_to(ROOT)}: {folders[path]} files")
    if cycle:
        print("  " + " -> ".join(cycle))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
