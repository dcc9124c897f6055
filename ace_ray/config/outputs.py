"""Whether an output can be written, asked before the work that it is the result of.

Asking means trying: a temporary file is made in the folder and removed, and so are folders that had to be made for it.
"""

import tempfile
from pathlib import Path

from ace_ray.config.errors import ConfigError

ELSEWHERE = "name a path in a folder that you may write to"


def writable_file(name: str | Path) -> Path:
    """The path of a file to write; one that exists may be replaced.

    Raises:
        ConfigError: It is a folder or a device, or its folder cannot be made or written.
    """
    path = Path(name)
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file"
            raise ConfigError(f"cannot write {path}: it is {what}", "name a file")
        _try(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}", ELSEWHERE) from error
    return path


def writable_folder(name: str | Path) -> Path:
    """The path of a folder to write into, which may be there or not.

    Raises:
        ConfigError: It is a file, or cannot be made or written.
    """
    path = Path(name)
    try:
        _try(path)
    except OSError as error:
        raise ConfigError(f"cannot write into {path}: {error.strerror or error}", ELSEWHERE) from error
    return path


def _try(folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    made: list[Path] = []
    try:
        for one in reversed(missing):
            one.mkdir()
            made.append(one)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)  # a full disk has room for names and none for content
    finally:
        for one in reversed(made):
            one.rmdir()
