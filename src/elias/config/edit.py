"""Sets values in `config.toml` for a command that made something: comments and everything else stay as they were."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from elias.config.file import CONFIG_FILE
from elias.errors import ConfigError
from elias_trainer.contract import sync_folder

_HEADER = re.compile(r"\s*\[")


def set_values(home: Path, table: str, values: Mapping[str, str]) -> Path:
    """Texts below `[table]`, which is added where it is not there. The file stays readable by whom it was.

    Raises ConfigError when the file cannot be changed so that it says just this; it is then left alone.
    """
    path = home / CONFIG_FILE
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    new = _edited(old, table, values)
    if not _says(new, table, values) or _without(new, table, values) != _without(old, table, values):
        lines = "\n".join(f"{name} = {json.dumps(text, ensure_ascii=False)}" for name, text in values.items())
        raise ConfigError(f"{path} was left alone: [{table}] is written in a way of its own", fix=f"write:\n{lines}")
    if new != old:
        _replace(path, new)
    return path


def _edited(old: str, table: str, values: Mapping[str, str]) -> str:
    lines = old.removesuffix("\n").split("\n") if old else []
    header = next((n for n, line in enumerate(lines) if _is_header(line, table)), None)
    if header is None:
        lines += [*([""] if lines and lines[-1].strip() else []), f"[{table}]"]
        header = len(lines) - 1
    for name, text in reversed(list(values.items())):
        end = next((n for n in range(header + 1, len(lines)) if _HEADER.match(lines[n])), len(lines))
        at = next((n for n in range(header + 1, end) if re.match(rf"\s*{re.escape(name)}\s*=", lines[n])), None)
        setting = f"{name} = {json.dumps(text, ensure_ascii=False)}"
        if at is None:
            lines.insert(header + 1, setting)
        else:
            lines[at] = setting + _comment(lines[at])
    return "\n".join(lines) + "\n"


def _is_header(line: str, table: str) -> bool:
    found = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
    return found is not None and re.sub(r"[\s\"']", "", found[1]) == table


def _comment(line: str) -> str:
    """What stands behind a value in quotes, if anything."""
    found = re.match(r"""\s*[\w-]+\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*')\s*(#.*)$""", line)
    return f"  {found[2]}" if found else ""


def _says(text: str, table: str, values: Mapping[str, str]) -> bool:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    for part in table.split("."):
        found = found.get(part, {})
    return all(found.get(name) == value for name, value in values.items())


def _without(text: str, table: str, values: Mapping[str, str]) -> object:
    """All that the file says beside these values; None for a file that says nothing readable."""
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    found = whole
    for part in table.split("."):
        found = found.setdefault(part, {})
    for name in values:
        found.pop(name, None)
    return whole


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        scratch.chmod(mode)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)
