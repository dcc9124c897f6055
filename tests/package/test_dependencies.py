"""What the package declares to need is what its code imports, in ranges that hold the tested versions."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.unit

REPO = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}


def locked(device: str) -> dict[str, str]:
    text = (REPO / "requirements" / f"{device}.txt").read_text(encoding="utf-8")
    return {canonicalize_name(name): pin for name, pin in re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE)}


def imported() -> set[str]:
    """Top-level modules that ace_ray and llm_service import, the standard library and themselves left out."""
    found: set[str] = set()
    for path in (path for package in ("ace_ray", "llm_service") for path in (REPO / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"ace_ray", "llm_service"}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_declared_range_holds_the_version_of_the_lock(device: str) -> None:
    pins = locked(device)
    wrong = {
        str(need): pins.get(canonicalize_name(need.name))
        for need in DECLARED + EXTRAS[device]
        if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"), prereleases=True)
    }
    assert not wrong


def test_every_third_party_import_is_declared_and_nothing_else_is() -> None:
    distributions = importlib.metadata.packages_distributions()
    by_import = {canonicalize_name(name) for module in imported() for name in distributions.get(module, [module])}
    declared = {canonicalize_name(need.name) for need in DECLARED}
    extras = {canonicalize_name(need.name) for needs in EXTRAS.values() for need in needs}
    assert by_import - extras == declared
