"""Where things lie on disk."""

import difflib
from pathlib import Path

from ace_ray.config.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
PROFILES = PACKAGE / "profiles"  # in the repository a link to configs/, in an installed package a folder


def shipped_profiles() -> list[str]:
    """Return the names of the profiles that come with the package: `local`, `grids/l2rpn_case14_sandbox`, ..."""
    return sorted(path.relative_to(PROFILES).with_name(path.stem).as_posix() for path in PROFILES.glob("**/*.yaml"))


def find_profile(profile: Path | str) -> Path:
    """Return the file of a profile, which is given as a path or as the name of one that comes with the package.

    A file of that name in the working folder goes before a profile of the package.

    Raises:
        ConfigError: It is neither.
    """
    path = Path(profile).expanduser()
    if path.is_file():
        return path
    names = shipped_profiles()
    if str(profile) in names:
        return PROFILES / f"{profile}.yaml"
    nearest = difflib.get_close_matches(path.stem, names, n=1)
    raise ConfigError(
        f"no profile {profile}: it is neither a file nor the name of a profile of this package",
        f"{f'did you mean {nearest[0]}? ' if nearest else ''}name a YAML file, or one of: {', '.join(names)}",
    )
