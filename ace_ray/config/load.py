"""Settings from YAML profiles and `dotted.key=value` overrides; the resolved settings back to YAML.

Later sources win: the defaults in the models, the profiles in their order, the overrides in theirs. An unknown key or a
value of the wrong type is a `ConfigError` that names the key, where it stands and the nearest key that exists.
"""

import difflib
import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ace_ray.config.errors import ConfigError
from ace_ray.config.paths import find_profile
from ace_ray.config.run import RunSettings

COMMAND_LINE = "command line"


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where PyYAML reads 1.1: `off` is a word (a refiner), `5e-5` a number; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(
                    f"{self.name}:{key_node.start_mark.line + 1}: key '{key}' is given twice", "remove one of the two"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_BOOL, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings of `model`, in the order in which they are declared."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from leaves(section, f"{prefix}{name}.")
        else:
            yield prefix + name


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield (dotted name, model) of `model` itself (name '') and of all settings models inside it."""
    yield prefix, model
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from sections(section, f"{prefix}.{name}" if prefix else name)


def _texts(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted names of the settings that are text: nothing after the `=` is the empty text there."""
    for prefix, section in sections(model):
        for name, field in section.model_fields.items():
            if field.annotation is str:
                yield f"{prefix}.{name}" if prefix else name


def flatten(tree: dict[str, Any], known: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return `tree` as {dotted name: leaf value}; a setting in `known` that is itself a mapping stays whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name not in known:
            flat.update(flatten(value, known, f"{name}."))
        else:
            flat[name] = value
    return flat


def load_settings(
    profiles: Sequence[Path | str] = (), overrides: Sequence[str] = (), base: RunSettings | None = None
) -> RunSettings:
    """Return the settings of a run.

    Args:
        profiles: YAML files, or names of profiles of this package (`one_gpu`); a later one overrides an earlier one key
            by key.
        overrides: `dotted.key=value`, the value read as YAML (`replay.capacity=1000`, `grid.data=null`), or the
            empty text where a text is wanted (`llm.endpoint.token_env=`). A last part
            that only one setting has may stand for the whole name (`refiner=off`).
        base: What profiles and overrides change; None: the defaults.

    Raises:
        ConfigError: A file that is missing or not YAML, an unknown key, a value of the wrong type or out of bounds.
    """
    known = list(leaves(RunSettings))
    texts = set(_texts(RunSettings))
    values: dict[str, Any] = flatten(base.model_dump(), known) if base else {}
    origins: dict[str, str] = {}
    for profile in profiles:
        flat = flatten(_read(find_profile(profile)), known)
        for key, value in flat.items():
            _require_known(key, value, known, str(profile))
            values[key], origins[key] = value, str(profile)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(
                f"'{override}' is not an override", "write dotted.key=value, such as replay.capacity=1000"
            )
        key = _in_full(key.strip(), known)
        _require_known(key, text, known, COMMAND_LINE)
        try:
            values[key] = "" if not text.strip() and key in texts else _parse(text, COMMAND_LINE)
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}: '{text}' is not a YAML value ({COMMAND_LINE})", "quote it") from error
        origins[key] = COMMAND_LINE
    try:
        return RunSettings.model_validate(_nest(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, origins), "see docs/configuration.md for types and bounds") from None


def to_yaml(settings: BaseModel) -> str:
    """Return all settings, defaults included, as YAML that `load_settings` reads back to the same settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def profile_keys(profile: Path) -> list[str]:
    """Return the dotted names of the settings that a profile sets, in its order."""
    return list(flatten(_read(profile), list(leaves(RunSettings))))


def dotted(settings: BaseModel, key: str) -> Any:
    """Return the value of the setting with the dotted name `key`."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the profile {path}: {error.strerror}", "make the file readable") from error
    try:
        tree = _parse(text, str(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}", "correct that line") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} has a {type(tree).__name__} instead of settings", "write 'key: value' lines")
    return tree


def _parse(text: str, origin: str) -> Any:
    loader = _Loader(text)
    loader.name = origin
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _in_full(key: str, known: Sequence[str]) -> str:
    """Return the only setting whose last part is `key`, or `key` itself."""
    if key in known or "." in key:
        return key
    matches = [name for name in known if name.rpartition(".")[2] == key]
    return matches[0] if len(matches) == 1 else key


def _require_known(key: str, value: Any, known: Sequence[str], origin: str) -> None:
    if key in known:
        return
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        if value is None or value == {}:
            raise ConfigError(f"'{key}' is a section without a value ({origin})", f"set {inside[0]}, or remove it")
        raise ConfigError(f"'{key}' is a section, not a setting ({origin})", f"set one of {', '.join(inside[:6])}")
    nearest = _nearest(key, known)
    raise ConfigError(
        f"unknown setting '{key}' ({origin})", f"did you mean '{nearest}'? docs/configuration.md lists every setting"
    )


def _nearest(key: str, known: Sequence[str]) -> str:
    """Return the known name most like `key`: a right last part in a wrong section counts more than a like spelling."""

    def likeness(name: str) -> float:
        whole = difflib.SequenceMatcher(None, key, name).ratio()
        last = difflib.SequenceMatcher(None, key.rpartition(".")[2], name.rpartition(".")[2]).ratio()
        return whole + last

    return max(known, key=likeness)


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def _explain(error: ValidationError, origins: dict[str, str]) -> str:
    """One line a wrong field: its dotted name, the value given, where it was given, what is wanted."""
    lines = []
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"]]
        key = ".".join(parts)
        while key not in origins and "." in key:  # inside a list, say
            key = key.rpartition(".")[0]
        wanted = problem["msg"][0].lower() + problem["msg"][1:]
        origin = origins.get(key)
        if origin is None:  # a rule over several fields
            lines.append(f"{key}: {wanted}" if key else wanted)
        else:
            lines.append(f"{key} = {problem['input']!r} ({origin}): {wanted}")
    return "\n  ".join(["wrong setting:", *lines] if len(lines) > 1 else lines)
