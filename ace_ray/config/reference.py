"""docs/configuration.md, made from the settings models: `make docs`, or `python -m ace_ray.config.reference`.

A test compares the file with what this module renders, so the page cannot fall behind the code.
"""

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ace_ray.config.load import sections
from ace_ray.config.run import RunSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

_HEAD = """# Configuration

Made from the code by `make docs`; do not edit. A setting is given in a profile (`ace train --config PROFILE`, several
are read in order) or on the command line as `dotted.key=value`, which wins. A profile is a YAML file, or the name of a
file in `configs/` (`one_gpu`, `grids/l2rpn_case14_sandbox`), which works from any folder. Unknown keys are
errors. The paper's values are in [configs/ace_paper.yaml](../configs/ace_paper.yaml); a run prints where it differs.
"""


def render() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for name, model in sections(RunSettings):
        rows = [_row(key, field, name) for key, field in model.model_fields.items() if not _is_section(field)]
        if rows:
            title = f"`{name}`" if name else "The run"
            doc = " ".join((model.__doc__ or "").split())
            header = "| setting | type | default | meaning |\n|---|---|---|---|"
            parts.append(f"## {title}\n\n{doc}\n\n{header}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _row(key: str, field: FieldInfo, section: str) -> str:
    name = f"{section}.{key}" if section else key
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_type(field.annotation)}{_bounds(field)} | `{_value(field)}` | {meaning} |"


def _value(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    return yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " / ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _type(part) for part in get_args(annotation))
    if origin is dict:
        return "mapping"
    names = {int: "whole number", float: "number", bool: "true / false", str: "text"}
    return names.get(annotation, str(annotation))


def _bounds(field: FieldInfo) -> str:
    signs = {
        annotated_types.Gt: ("gt", ">"),
        annotated_types.Ge: ("ge", "≥"),
        annotated_types.Lt: ("lt", "<"),
        annotated_types.Le: ("le", "≤"),
    }
    found = []
    for rule in field.metadata:
        if type(rule) in signs:
            attribute, sign = signs[type(rule)]
            found.append(f"{sign} {getattr(rule, attribute):g}")
    return f", {' and '.join(found)}" if found else ""


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
