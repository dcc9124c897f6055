"""What numba's cache on disk cannot notice does not occur."""

import ast
import inspect
from types import ModuleType

import pytest
from numba.core.dispatcher import Dispatcher

from ace_ray.grid.physics import kernels, linear, newton, newton_kernels, outage_kernels

pytestmark = pytest.mark.unit


def borrowed(module: ModuleType) -> set[str]:
    """Numbers, sets and compiled functions of other modules that the compiled functions of this one use."""
    tree = ast.parse(inspect.getsource(module))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ace_ray")
        for alias in node.names
    }
    compiled = {name for name, value in vars(module).items() if isinstance(value, Dispatcher)}
    used = {
        name.id
        for function in tree.body
        if isinstance(function, ast.FunctionDef) and function.name in compiled
        for part in function.body
        for name in ast.walk(part)
        if isinstance(name, ast.Name)
    }
    return used & imported


@pytest.mark.parametrize("module", [kernels, newton_kernels, outage_kernels, linear, newton])
def test_a_compiled_function_calls_into_no_other_file(module):
    assert any(isinstance(value, Dispatcher) for value in vars(module).values())
    assert borrowed(module) == set()
