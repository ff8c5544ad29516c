"""The official client made fit for a long-lived process: time limits, no printing, uploads kept in its own place."""

from __future__ import annotations

import importlib
import io
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.errors import ConfigError, MissingPackage

CONNECT_S = 10.0
CREDENTIAL_FILES = ("kaggle.json", "access_token", "credentials.json")
CREDENTIALS_FIX = (
    "make a token at kaggle.com/settings, save it as ~/.kaggle/kaggle.json, then: chmod 600 ~/.kaggle/kaggle.json"
)
_process = threading.RLock()
"""For what the client can be told only through the whole process: standard output while it starts, TMPDIR."""


def official_client(settings: KaggleSettings) -> Any:
    """An authenticated `KaggleApi`. Raises MissingPackage, or ConfigError with its fix."""
    refuse_readable_credentials()
    try:
        with _process, redirect_stdout(io.StringIO()):  # it asks for credentials when imported, and prints advice
            extended = importlib.import_module("kaggle.api.kaggle_api_extended")
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"training on Kaggle needs the package {error.name!r}", fix="pip install 'elias-node[kaggle]'"
        ) from error
    except SystemExit as error:
        raise ConfigError("Kaggle's client found no credentials", fix=CREDENTIALS_FIX) from error
    api = _with_limits(extended, settings)()
    try:
        with _process, redirect_stdout(io.StringIO()):
            api.authenticate()
    except SystemExit as error:
        raise ConfigError("Kaggle's client found no credentials", fix=CREDENTIALS_FIX) from error
    return api


def with_read_limit(api: Any, read_s: float) -> Any:
    """The same client with another limit on silence."""
    other = type(api)()
    other.config_values = api.config_values
    other.read_s = read_s
    return other


@contextmanager
def uploads_kept_in(folder: Path) -> Iterator[None]:
    """The client keeps what it knows of unfinished uploads below TMPDIR, one upload at a time: ours is our own."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _process:
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def refuse_readable_credentials() -> None:
    """Raises ConfigError naming the file that others on this machine can read."""
    xdg = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    given = os.environ.get("KAGGLE_CONFIG_DIR")
    folders = [Path(given)] if given else [Path.home() / ".kaggle", xdg]
    token = os.environ.get("KAGGLE_API_TOKEN", "")
    files = [folder / name for folder in folders for name in CREDENTIAL_FILES]
    for path in [*files, *([Path(token)] if token.startswith(("/", "~", ".")) else [])]:
        path = path.expanduser()
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{path} can be read by others on this machine", fix=f"chmod 600 {path}")


def _with_limits(extended: Any, settings: KaggleSettings) -> type[Any]:
    from kagglesdk.kaggle_client import KaggleClient as Sdk
    from kagglesdk.kaggle_env import KaggleEnv

    read_s = settings.http_read.total_seconds()
    extended.print = _say_nothing  # stdout is the answer of our own commands
    extended.requests = _Requests(read_s)  # uploads and downloads go past the client below

    class Api(extended.KaggleApi):  # type: ignore[misc] # the client ships no types
        def build_kaggle_client(self) -> Any:
            made = super().build_kaggle_client()
            if settings.base_url is not None:
                made = Sdk(
                    env=KaggleEnv.LOCAL,
                    username=self.config_values.get(self.CONFIG_NAME_USER),
                    password=self.config_values.get(self.CONFIG_NAME_KEY),
                    api_token=self.config_values.get(self.CONFIG_NAME_TOKEN),
                )
                made._http_client._endpoint = settings.base_url
            made._http_client._init_session()
            _limit_time(made._http_client._session, getattr(self, "read_s", read_s))
            return made

    return Api


class _Requests:
    """The module `requests` as the client sees it, with time limits where the client sets none."""

    def __init__(self, read_s: float) -> None:
        self._read_s = read_s

    def __getattr__(self, name: str) -> Any:
        import requests

        return getattr(requests, name)

    def get(self, url: str, **options: Any) -> Any:
        import requests

        return requests.get(url, **{**options, "timeout": (CONNECT_S, self._read_s)})

    def Session(self) -> Any:  # the name it stands for
        import requests

        read_s = self._read_s

        class Limited(requests.Session):
            def send(self, request: Any, **options: Any) -> Any:
                options["timeout"] = options.get("timeout") or (CONNECT_S, read_s)
                return super().send(request, **options)

        return Limited()


def _limit_time(session: Any, read_s: float) -> None:
    from requests.adapters import HTTPAdapter

    class Limited(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            options["timeout"] = options.get("timeout") or (CONNECT_S, read_s)
            response = super().send(request, *args, **options)
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                response.encoding = "utf-8"  # it comes without a charset, and would be taken for Latin-1
            return response

    session.mount("http://", Limited())
    session.mount("https://", Limited())


def _say_nothing(*words: object, **options: object) -> None:
    """In place of the client's `print`."""
