"""Resolves each setting from its strongest source, and remembers which one that was."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias.config.file import CONFIG_FILE, read_file
from elias.config.schema import Config
from elias.errors import ConfigError

log = logging.getLogger("elias.config")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One value as somebody wrote it, before it is checked."""

    name: str
    """Dotted, such as `node.port`."""
    raw: Any
    origin: str
    """Such as `config.toml:12`, `ELIAS_NODE_PORT` or `--port`."""
    where: str
    """The same with the file's whole path, for an error."""
    is_text: bool
    """From the environment or a flag: numbers and lists arrive as text too."""


def load(flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration of the node at `$ELIAS_HOME` (`~/.elias`).

    `flags` go by dotted name, such as `{"node.port": "4242"}`; `environment` is this process's own unless given.
    Raises ConfigError, naming the file and line, the variable or the flag, with an example that would do.
    """
    flags, environment = flags or {}, os.environ if environment is None else environment
    home, home_origin = _home(flags, environment)
    tables, lines = read_file(home / CONFIG_FILE)
    backends = _backends(tables.pop("backends", {}))
    settings = [*_from_file(home, tables, lines), *_from_environment(environment), *_from_flags(flags)]
    for setting in settings:
        _refuse_unknown(setting)
    settings = [*_from_profile(settings), *settings]
    values = dict(defaults())
    origins = {"home": home_origin} | dict.fromkeys(values, "default")
    if settings:
        from elias.config.check import checked  # pydantic, a tenth of a second: only where there is something to check

        for setting in settings:
            values[setting.name] = checked(setting.name, setting.raw, setting.where, is_text=setting.is_text)
            origins[setting.name] = setting.origin
    for name, table in backends.items():
        origins |= {f"backends.{name}.{key}": lines[f"backends.{name}.{key}"] for key in table}
    config = _assemble(home, values, backends, origins)
    _warn_of_open_password(config)
    return config


def defaults() -> Iterator[tuple[str, Any]]:
    """Each setting's dotted name and default, `home` and the backends' own tables apart."""
    blank = Config(home=Path())
    for field in dataclasses.fields(Config):
        value = getattr(blank, field.name)
        if dataclasses.is_dataclass(value):
            for part in dataclasses.fields(value):
                yield f"{field.name}.{part.name}", getattr(value, part.name)
        elif field.name not in ("home", "backends", "origins"):
            yield field.name, value


def _home(flags: Mapping[str, str], environment: Mapping[str, str]) -> tuple[Path, str]:
    if given := flags.get("home"):
        return Path(given).expanduser().absolute(), "--home"
    if given := environment.get("ELIAS_HOME"):
        return Path(given).expanduser().absolute(), "ELIAS_HOME"
    return Path.home() / ".elias", "default"


def _from_file(home: Path, tables: Mapping[str, Any], lines: Mapping[str, str]) -> Iterator[Setting]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        if name in _sections() and isinstance(value, dict):
            flat |= {f"{name}.{key}": raw for key, raw in value.items()}
        else:
            flat[name] = value
    for name, raw in flat.items():
        yield Setting(name=name, raw=raw, origin=lines[name], where=str(home / lines[name]), is_text=False)


def _from_environment(environment: Mapping[str, str]) -> Iterator[Setting]:
    """Only variables that begin with a section's name: `ELIAS_HOME` and what other programs set are not settings."""
    for variable, text in sorted(environment.items()):
        if variable in ("ELIAS_EVALUATORS", "ELIAS_PROFILE"):
            name = variable.removeprefix("ELIAS_").lower()
            yield Setting(name=name, raw=text, origin=variable, where=variable, is_text=True)
        for section in _sections():
            prefix = f"ELIAS_{section.upper()}_"
            if variable.startswith(prefix):
                name = f"{section}.{variable.removeprefix(prefix).lower()}"
                yield Setting(name=name, raw=text, origin=variable, where=variable, is_text=True)


def _from_profile(settings: Sequence[Setting]) -> Iterator[Setting]:
    """The presets of the profile that is named last: weaker than all that was set."""
    named = next((s for s in reversed(settings) if s.name == "profile"), None)
    if named is None:
        return
    from elias.config.check import checked
    from elias.domain.profile import PROFILES

    name = checked(named.name, named.raw, named.where, is_text=named.is_text)
    for setting, raw in PROFILES[name].settings.items():
        origin = f"profile {name}"
        yield Setting(name=setting, raw=raw, origin=origin, where=origin, is_text=False)


def _from_flags(flags: Mapping[str, str]) -> Iterator[Setting]:
    for name, text in flags.items():
        if name != "home":
            flag = "--" + name.rpartition(".")[2].replace("_", "-")
            yield Setting(name=name, raw=text, origin=flag, where=flag, is_text=True)


def _sections() -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.partition(".")[0] for name, _ in defaults() if "." in name))


def _refuse_unknown(setting: Setting) -> None:
    known = [name for name, _ in defaults()]
    if setting.name in known:
        return
    if setting.name in _sections():
        raise ConfigError(
            f"{setting.where}: {setting.name!r} is a table, not a value", fix=f"write [{setting.name}] on its own line"
        )
    section = setting.name.partition(".")[0]
    near = difflib.get_close_matches(setting.name, [*known, *_sections(), "backends"], n=1, cutoff=0.6)
    siblings = [name for name in known if name.startswith(f"{section}.")]
    if near:
        fix = f"did you mean {near[0]}? change it in {setting.where}"
    elif siblings:
        fix = f"[{section}] knows: {', '.join(name.partition('.')[2] for name in siblings)}"
    else:
        fix = f"remove it; the tables are: {', '.join(_sections())}, backends"
    raise ConfigError(f"{setting.where}: there is no setting called {setting.name!r}", fix=fix)


def _backends(tables: Any) -> Mapping[str, Mapping[str, Any]]:
    """Each backend checks its own table when it is made; here only the shape."""
    wrong = not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values())
    if wrong:
        raise ConfigError(
            f"{CONFIG_FILE}: backends is not made of tables", fix="write [backends.local], and its settings below"
        )
    return dict(tables)


def _assemble(home: Path, values: Mapping[str, Any], backends: Any, origins: Mapping[str, str]) -> Config:
    blank = Config(home=home)
    parts: dict[str, Any] = {}
    for section in _sections():
        own = {n.partition(".")[2]: v for n, v in values.items() if n.startswith(f"{section}.")}
        parts[section] = dataclasses.replace(getattr(blank, section), **own)
    plain = {name: value for name, value in values.items() if "." not in name}
    return Config(home=home, backends=backends, origins=dict(origins), **parts, **plain)


def _warn_of_open_password(config: Config) -> None:
    path = config.home / CONFIG_FILE
    if not config.origins["store.url"].startswith(CONFIG_FILE) or not has_password(config.store.url):
        return
    if path.stat().st_mode & 0o077:
        log.warning("warning: %s holds a password and others can read it\n  fix: chmod 600 %s", path, path)


def has_password(url: str | None) -> bool:
    return url is not None and masked(url) != url


def masked(url: str) -> str:
    """A store's URL without its password."""
    return re.sub(r"(://[^/?#]*?:)[^/?#]*(?=@)|((?:^|[?&])password=)[^&]*", r"\1\2***", url)
