"""Kaggle's official client behind time limits, bounded retries and our errors. Nothing else here talks to Kaggle."""

from __future__ import annotations

import importlib
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.errors import BackendError, ConfigError, MissingPackage, NotFound, QuotaExhausted
from elias.units import Clock

Answer = TypeVar("Answer")
CONNECT_S = 10.0
PAGE_SIZE = 100
CREDENTIALS_FIX = (
    "make a token at kaggle.com/settings, save it as ~/.kaggle/kaggle.json, then: chmod 600 ~/.kaggle/kaggle.json"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A pushed kernel's newest session."""

    status: str
    """QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_REQUESTED, CANCEL_ACKNOWLEDGED or NEW_SCRIPT."""
    failure: str | None

    @property
    def has_ended(self) -> bool:
        return self.status in ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")


class KaggleClient:
    """Reads credentials the official way, never logs or keeps them. Every call raises BackendError or NotFound."""

    def __init__(self, settings: KaggleSettings, clock: Clock, scratch: Path) -> None:
        self._settings = settings
        self._clock = clock
        self._scratch = scratch
        _refuse_readable_credentials()
        self._api = _official_client(settings)
        self.owner = str(self._api.config_values.get("username") or "")
        if not self.owner:
            raise ConfigError("Kaggle's client found no credentials", fix=CREDENTIALS_FIX)

    def quota(self) -> Mapping[str, Any]:
        """GPU seconds used, reserved and allowed of this week, and when it ends."""
        answer = self._call("quota", self._api.quota_view)
        gpu = answer.gpu_quota
        return {
            "used": gpu.time_used,
            "reserved": gpu.time_reserved,
            "allowed": gpu.total_time_allowed,
            "refreshes_at": _aware(answer.quota_refresh_time),
        }

    def dataset_state(self, slug: str) -> str | None:
        """`ready`, another status in lower case, or None where there is no such dataset."""
        try:
            return str(self._call("dataset status", lambda: self._api.dataset_status(f"{self.owner}/{slug}"))).lower()
        except NotFound:
            return None

    def dataset_description(self, slug: str) -> str | None:
        """Of the newest version. `put_dataset` writes the notes there too, as a first version takes none."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = self.owner, slug

        def get() -> Any:
            with self._api.build_kaggle_client() as kaggle:
                return kaggle.datasets.dataset_api_client.get_dataset(request)

        try:
            return str(self._call("dataset", get).description)
        except NotFound:
            return None

    def put_dataset(self, slug: str, folder: Path, notes: str, replace: bool) -> None:
        """A new version of the dataset, made if it is not there, of the files in `folder`."""
        ref, target = f"{self.owner}/{slug}", str(folder)
        metadata = {"id": ref, "title": slug, "licenses": [{"name": "other"}], "description": notes}
        (folder / "dataset-metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
        with self._own_uploads():
            if self.dataset_state(slug) is None:
                name, call = "dataset create", lambda: self._api.dataset_create_new(target, quiet=True)
            else:
                name, call = (
                    "dataset version",
                    lambda: self._api.dataset_create_version(target, notes, quiet=True, delete_old_versions=replace),
                )
            answer = self._call(name, call)
        if answer is None or answer.error:
            what = answer.error if answer is not None else "no answer"
            raise BackendError(
                f"Kaggle refused the dataset {slug}: {what}", fix="look at kaggle.com/datasets, then: elias run resume"
            )

    def delete_dataset(self, slug: str) -> None:
        """Of no effect where there is none."""
        from kagglesdk.datasets.types.dataset_api_service import ApiDeleteDatasetRequest

        request = ApiDeleteDatasetRequest()
        request.owner_slug, request.dataset_slug = self.owner, slug

        def delete() -> None:
            with self._api.build_kaggle_client() as kaggle:
                kaggle.datasets.dataset_api_client.delete_dataset(request)

        try:
            self._call("dataset delete", delete)
        except NotFound:
            return

    def push(self, folder: Path, timeout_s: int) -> int:
        """The version number. Raises QuotaExhausted, or BackendError with what Kaggle said (with status 200)."""
        accelerator = self._settings.accelerator or None
        answer = self._call(
            "push", lambda: self._api.kernels_push(str(folder), timeout=str(timeout_s), acc=accelerator), tries=1
        )
        if answer.error:
            raise _refused_push(str(answer.error))
        if wrong := [*(answer.invalid_dataset_sources or []), *(answer.invalid_kernel_sources or [])]:
            raise BackendError(
                f"Kaggle does not know what the kernel is to mount: {', '.join(wrong)}",
                fix="wait until the dataset is ready, then: elias run resume",
            )
        return int(answer.version_number)

    def session(self, slug: str) -> Session:
        """Raises NotFound where there is no such kernel."""
        answer = self._call("status", lambda: self._api.kernels_status(f"{self.owner}/{slug}"))
        return Session(status=answer.status.name, failure=answer.failure_message or None)

    def output(self, slug: str, into: Path) -> None:
        """All pages of what the session wrote, and its log as `<slug>.log`."""
        self._call(
            "output",
            lambda: self._api.kernels_output(
                f"{self.owner}/{slug}", str(into), force=True, quiet=True, page_size=PAGE_SIZE
            ),
        )

    def log_lines(self, slug: str, quiet_s: float) -> Iterator[str]:
        """Lines of the live log from its beginning, until it ends or nothing comes for `quiet_s` seconds."""
        import requests

        reader = _with_read_limit(self._api, quiet_s)
        try:
            for entry in reader.kernels_logs_stream(f"{self.owner}/{slug}"):
                yield from str(entry.get("data", "")).splitlines()
        except (requests.RequestException, ValueError):
            return  # nothing new, or the connection was cut: the next look begins anew

    def delete_kernel(self, slug: str) -> None:
        """Of no effect where there is none."""
        try:
            self._call("kernel delete", lambda: self._api.kernels_delete(f"{self.owner}/{slug}", no_confirm=True))
        except NotFound:
            return

    @contextmanager
    def _own_uploads(self) -> Iterator[None]:
        """The client keeps what it knows of unfinished uploads below TMPDIR: ours is our own."""
        import tempfile

        before = tempfile.tempdir
        self._scratch.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(self._scratch)
        try:
            yield
        finally:
            tempfile.tempdir = before

    def _call(self, name: str, call: Callable[[], Answer], *, tries: int | None = None) -> Answer:
        """With its own bounded retries: the client repeats only some calls, and waits for ever in all of them."""
        left = tries or self._settings.http_tries
        wait = self._settings.retry_wait
        while True:
            try:
                with redirect_stdout(io.StringIO()):  # the client prints; stdout is the answer of our own commands
                    return call()
            except (OSError, ValueError, KeyError) as error:  # what requests, json and the client's enums raise
                failure = _translate(name, error)
                left -= 1
                if not left or not failure.is_worth_retry:
                    raise failure from error
            self._clock.sleep(wait)
            wait *= 2


def _official_client(settings: KaggleSettings) -> Any:
    try:
        with redirect_stdout(io.StringIO()):  # it asks for credentials when it is imported, and prints advice
            extended = importlib.import_module("kaggle.api.kaggle_api_extended")
        from kagglesdk.kaggle_client import KaggleClient as Sdk
        from kagglesdk.kaggle_env import KaggleEnv
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"training on Kaggle needs the package {error.name!r}", fix="pip install 'elias-node[kaggle]'"
        ) from error

    class Api(extended.KaggleApi):  # type: ignore[misc,name-defined] # the client ships no types
        read_s = settings.http_read.total_seconds()

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
            _limit_time(made._http_client, self.read_s)
            return made

    api = Api()
    try:
        with redirect_stdout(io.StringIO()):
            api.authenticate()
    except SystemExit as error:
        raise ConfigError("Kaggle's client found no credentials", fix=CREDENTIALS_FIX) from error
    return api


def _with_read_limit(api: Any, read_s: float) -> Any:
    """The same client with another limit on silence."""
    quick = type(api)()
    quick.config_values = api.config_values
    quick.read_s = read_s
    return quick


def _limit_time(http: Any, read_s: float) -> None:
    """Mount an adapter with time limits: the client sets none of its own."""
    from requests.adapters import HTTPAdapter

    class Limited(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            options["timeout"] = options.get("timeout") or (CONNECT_S, read_s)
            return super().send(request, *args, **options)

    http._init_session()
    http._session.mount("http://", Limited())
    http._session.mount("https://", Limited())


def _translate(name: str, error: Exception) -> BackendError | NotFound | ConfigError:
    import requests

    response = getattr(error, "response", None)
    if response is None and isinstance(error.__context__, requests.HTTPError):
        response = error.__context__.response  # the client turns some of these into a bare ValueError
    status = getattr(response, "status_code", None)
    if status == 401:
        return ConfigError("Kaggle does not accept these credentials", fix=CREDENTIALS_FIX)
    if status in (403, 404):
        return NotFound(f"Kaggle knows no such thing ({name})", fix="look at kaggle.com, then: elias run resume")
    return BackendError(
        f"Kaggle could not be asked ({name}): {type(error).__name__}: {str(error)[:200]}",
        fix="check the network and kaggle.com/status; the run tries again by itself",
        kept="every checkpoint that came home",
    )


def _refused_push(message: str) -> BackendError | QuotaExhausted:
    lower = message.lower()
    if "session count" in lower:
        return QuotaExhausted(f"Kaggle: {message}", fix="wait until another session of this account ends")
    if "quota" in lower:
        return QuotaExhausted(
            f"Kaggle: {message}", fix="wait for the weekly refresh, or train elsewhere: --strategy local"
        )
    return BackendError(
        f"Kaggle refused the kernel: {message}",
        fix="look at kaggle.com/settings (phone verified?), then: elias run resume",
    )


def _refuse_readable_credentials() -> None:
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    for name in ("kaggle.json", "access_token", "credentials.json"):
        path = folder / name
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{path} can be read by others on this machine", fix=f"chmod 600 {path}")


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
