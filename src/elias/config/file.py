"""Reads `config.toml`, and tells on which line each setting stands."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from elias.errors import ConfigError

CONFIG_FILE = "config.toml"

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*([\w."'-]+)\s*=""")


def read_file(path: Path) -> tuple[dict[str, Any], defaultdict[str, str]]:
    """The file's tables, and `config.toml:12` for each dotted name in it; both empty where there is no file.

    Raises ConfigError when it cannot be read, is not UTF-8, or is not TOML.
    """
    unplaced: defaultdict[str, str] = defaultdict(lambda: CONFIG_FILE)
    try:
        text = path.read_bytes().decode("utf-8")
        tables = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return {}, unplaced
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", fix=f"chmod u+r {path}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line} is not UTF-8", fix="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise _broken(path, text, error) from error
    unplaced.update(_lines(text))
    return tables, unplaced


def _broken(path: Path, text: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    found = re.search(r"at line (\d+)", str(error))
    number = int(found[1]) if found else text.count("\n") + 1
    lines = text.splitlines()
    shown = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    why = str(error).partition(" (at ")[0]
    fix = f'edit line {number}; a setting reads like port = 4141 or label = "private"'
    if why.startswith("Cannot declare") and _HEADER.match(shown):
        fix = f"delete line {number}; what is below it goes under the {shown} that the file has already"
    return ConfigError(f"{path}:{number} is not TOML: {why}" + (f": {shown}" if shown else ""), fix=fix)


def _lines(text: str) -> dict[str, str]:
    """By looking at the lines that begin a table or a setting: the parser itself keeps no positions."""
    table = ""
    places: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _bare(header[1])
            places.setdefault(table, f"{CONFIG_FILE}:{number}")
        elif key := _KEY.match(line):
            dotted = f"{table}.{_bare(key[1])}" if table else _bare(key[1])
            places.setdefault(dotted, f"{CONFIG_FILE}:{number}")
    return places


def _bare(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))
