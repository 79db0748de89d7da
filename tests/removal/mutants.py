"""Takes each check out of the rules of removal, one at a time, and runs the rules' tests: every time one must fail.

A program of its own: it forks for each mutant, loads the mutated module under its own name before the tests are
imported, and runs those tests that need no fixture and draw nothing. Prints one line for each mutant that survived.
"""

import ast
import contextlib
import copy
import importlib
import importlib.util
import inspect
import itertools
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# In the order of their imports.
MODULES = ("glance_replicas.removal.causes", "glance_replicas.removal.proof", "glance_replicas.removal.last_copy")
TESTS = ("test_causes", "test_prune", "test_last_copy_rule")


class Mutator(ast.NodeTransformer):
    """Takes out check number `wanted`; `found` counts them, `text` describes the one."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.found, self.text = wanted, 0, ""

    def _is_it(self, node: ast.AST, what: str) -> bool:
        self.found += 1
        if self.found - 1 != self.wanted:
            return False
        self.text = f"line {getattr(node, 'lineno', '?')}: {what} of: {ast.unparse(node)[:90]}"
        return True

    def visit_If(self, node: ast.If) -> ast.AST:
        """A guard that returns."""
        if self._is_it(node.test, "without the guard"):
            node.test = ast.Constant(False)
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """One clause of an `and` or an `or`; `x or 0` is no check, but what a type asks for."""
        if isinstance(node.op, ast.Or) and isinstance(node.values[-1], ast.Constant):
            return self.generic_visit(node)
        for number in range(len(node.values)):
            if self._is_it(node, f"without clause {number + 1}"):
                del node.values[number]
                return self.generic_visit(node) if len(node.values) > 1 else node.values[0]
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """One bound of `a <= b <= c`; the edge of a bound."""
        if len(node.ops) == 2:
            if self._is_it(node, "without the lower bound"):
                return ast.Compare(node.comparators[0], node.ops[1:], node.comparators[1:])
            if self._is_it(node, "without the upper bound"):
                return ast.Compare(node.left, node.ops[:1], node.comparators[:1])
        edges = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
        if len(node.ops) == 1 and type(node.ops[0]) in edges and self._is_it(node, "another edge"):
            node.ops = [edges[type(node.ops[0])]()]
        return self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        """A filter of a comprehension."""
        for number, test in enumerate(node.ifs):
            if self._is_it(test, "without the filter"):
                del node.ifs[number]
                break
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`filter`, and a bound by `max`."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "filter" and self._is_it(node, "without the filter"):
            return self.generic_visit(node.args[1])
        if name == "max" and len(node.args) == 2 and self._is_it(node, "without the bound"):
            return node.args[1]
        return self.generic_visit(node)


def mutants() -> Iterator[tuple[str, ast.Module, str]]:
    """(module, its tree without one check, what was taken out)."""
    for name in MODULES:
        path = importlib.util.find_spec(name).origin  # type: ignore[union-attr]
        whole = ast.parse(Path(str(path)).read_text())
        for number in itertools.count():
            mutator = Mutator(number)
            tree = mutator.visit(copy.deepcopy(whole))
            if not mutator.text:
                break
            yield name, ast.fix_missing_locations(tree), f"{name} {mutator.text}"


def calls(module: types.ModuleType) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every test of a module with its parameters; those of Hypothesis are left out."""
    for name, function in vars(module).items():
        if not name.startswith("test_") or hasattr(function, "hypothesis"):
            continue
        tables = []
        for mark in getattr(function, "pytestmark", ()):
            names, rows = mark.args
            names = [one.strip() for one in names.split(",")] if isinstance(names, str) else list(names)
            tables.append([dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in rows])
        for chosen in itertools.product(*tables):
            values = {key: value for row in chosen for key, value in row.items()}
            assert values.keys() == inspect.signature(function).parameters.keys(), f"{name} wants a fixture"
            yield function, values


def passes(mutated: str | None, tree: ast.Module | None) -> bool:
    """Whether all tests pass in a world with this module."""
    for name in (*MODULES, *TESTS):
        sys.modules.pop(name, None)
    for name in MODULES:
        if name == mutated and tree is not None:
            module = types.ModuleType(name)
            module.__package__ = name.rpartition(".")[0]
            sys.modules[name] = module
            setattr(sys.modules[module.__package__], name.rpartition(".")[2], module)
            exec(compile(tree, name, "exec"), module.__dict__)
        else:
            importlib.import_module(name)
    for name in TESTS:
        for function, values in calls(importlib.import_module(name)):
            function(**values)
    return True


def survives(mutated: str | None, tree: ast.Module | None) -> bool:
    """`passes`, in a process of its own."""
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing), contextlib.redirect_stdout(nothing):
            status = 1
            with contextlib.suppress(BaseException):
                status = 0 if passes(mutated, tree) else 1
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> int:
    """0: the tests pass as things are, and no mutant survives."""
    sys.path.insert(0, str(Path(__file__).parent))
    for name in TESTS:
        importlib.import_module(name)  # pytest, hypothesis and all: once
    if not survives(None, None):
        print("the tests fail without any mutation")
        return 1
    number, survivors = 0, []
    for name, tree, text in mutants():
        number += 1
        if survives(name, tree):
            survivors.append(text)
    print(*survivors, sep="\n")
    print(f"{number} mutants, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
