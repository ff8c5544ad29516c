"""Kaggle's calls behind bounded retries and our errors. Nothing else here talks to Kaggle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from elias.adapters.backends.kaggle.official import (
    CREDENTIALS_FIX,
    official_client,
    uploads_kept_in,
    with_read_limit,
)
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.errors import BackendError, ConfigError, EliasError, NotFound, QuotaExhausted, Refused
from elias.units import Clock

Answer = TypeVar("Answer")
PAGE_SIZE = 100
LONGEST_WAIT = timedelta(minutes=1)
"""Between two tries, whatever `Retry-After` says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A pushed kernel's newest session."""

    status: str
    """QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_REQUESTED, CANCEL_ACKNOWLEDGED or NEW_SCRIPT."""
    failure: str | None

    @property
    def has_ended(self) -> bool:
        return self.status in ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")

    @property
    def has_begun(self) -> bool:
        return self.status not in ("QUEUED", "NEW_SCRIPT")


class UnknownSources(BackendError):
    """Kaggle does not know what the kernel is to mount."""


class KaggleClient:
    """Reads credentials the official way, never logs or keeps them. Every call raises BackendError or NotFound."""

    def __init__(self, settings: KaggleSettings, clock: Clock, scratch: Path) -> None:
        self._settings = settings
        self._clock = clock
        self._scratch = scratch
        self._api = official_client(settings)
        self.owner = str(self._api.config_values.get("username") or "")
        if not self.owner:
            raise ConfigError("Kaggle's client found no credentials", fix=CREDENTIALS_FIX)

    def quota(self) -> Mapping[str, Any]:
        """GPU time used, reserved and allowed of this week, and when it ends."""

        def ask() -> Mapping[str, Any]:
            answer = self._api.quota_view()
            if answer is None or answer.gpu_quota is None or answer.quota_refresh_time is None:
                raise ValueError("no GPU quota in the answer")
            gpu = answer.gpu_quota
            return {
                "used": gpu.time_used or timedelta(0),
                "reserved": gpu.time_reserved or timedelta(0),
                "allowed": gpu.total_time_allowed or timedelta(0),
                "refreshes_at": _aware(answer.quota_refresh_time),
            }

        return self._call("quota", ask)

    def dataset_state(self, slug: str) -> str | None:
        """`ready`, another status in lower case, or None where there is no such dataset."""
        try:
            return str(self._call("dataset status", lambda: self._api.dataset_status(f"{self.owner}/{slug}"))).lower()
        except NotFound:
            return None

    def dataset_holds(self, slug: str, notes: str) -> bool:
        """Whether the newest version was sent with these notes.

        `put_dataset` writes them into the description too, since the first version takes none.
        """
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = self.owner, slug

        def get() -> bool:
            with self._api.build_kaggle_client() as kaggle:
                found = kaggle.datasets.dataset_api_client.get_dataset(request)
            newest = max(found.versions or [], key=lambda version: version.version_number, default=None)
            return notes in (found.description, newest.version_notes if newest else None)

        try:
            return self._call("dataset", get)
        except NotFound:
            return False

    def put_dataset(self, slug: str, folder: Path, notes: str, *, replace: bool) -> None:
        """A new version of the private dataset, made if it is not there, of the files in `folder`. Not repeated here:
        whoever calls looks first whether it arrived."""
        ref, target = f"{self.owner}/{slug}", str(folder)
        metadata = {"id": ref, "title": slug, "licenses": [{"name": "other"}], "description": notes}
        (folder / "dataset-metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
        is_new = self.dataset_state(slug) is None

        def send() -> Any:
            if is_new:
                return self._api.dataset_create_new(target, public=False, quiet=True)
            return self._api.dataset_create_version(target, notes, quiet=True, delete_old_versions=replace)

        with uploads_kept_in(self._scratch):
            answer = self._call("dataset upload", send, tries=1)
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
        """The version number. Sent once, never repeated here.

        Raises QuotaExhausted, Refused or UnknownSources for what Kaggle said with status 200; BackendError where
        nobody knows whether it arrived.
        """
        accelerator = self._settings.accelerator or None
        answer = self._call(
            "push", lambda: self._api.kernels_push(str(folder), timeout=str(timeout_s), acc=accelerator), tries=1
        )
        if answer.error:
            raise _refused_push(str(answer.error))
        unknown = (answer.invalid_dataset_sources, answer.invalid_kernel_sources, answer.invalid_model_sources)
        if wrong := [source for sources in unknown for source in sources or []]:
            raise UnknownSources(
                f"Kaggle does not know what the kernel is to mount: {', '.join(wrong)}",
                fix="look at kaggle.com/datasets; then: elias run resume",
            )
        return int(answer.version_number)

    def session(self, kernel: str) -> Session:
        """Of a slug, or of `owner/slug`. Raises NotFound where there is no such kernel."""
        answer = self._call("status", lambda: self._api.kernels_status(self._ref(kernel)))
        return Session(status=answer.status.name, failure=answer.failure_message or None)

    def output(self, kernel: str, into: Path) -> None:
        """All pages of what the session wrote, and its log as `<slug>.log`."""
        ref = self._ref(kernel)
        self._call(
            "output",
            lambda: self._api.kernels_output(ref, str(into), force=True, quiet=True, page_size=PAGE_SIZE),
        )

    def log_lines(self, kernel: str, quiet_s: float) -> Iterator[str]:
        """Lines of the live log from its beginning. Ends with the log; raises BackendError when the stream is cut, or
        nothing comes for `quiet_s` seconds."""
        reader = with_read_limit(self._api, quiet_s)
        try:
            for entry in reader.kernels_logs_stream(self._ref(kernel)):
                yield from str(entry.get("data", "")).splitlines()
        except (OSError, ValueError, KeyError) as error:
            raise _translate("log", error) from error

    def delete_kernel(self, kernel: str) -> None:
        """Of no effect where there is none."""
        try:
            self._call("kernel delete", lambda: self._api.kernels_delete(self._ref(kernel), no_confirm=True))
        except NotFound:
            return

    def _ref(self, kernel: str) -> str:
        return kernel if "/" in kernel else f"{self.owner}/{kernel}"

    def _call(self, name: str, call: Callable[[], Answer], *, tries: int | None = None) -> Answer:
        """With its own bounded retries: the client repeats only some calls."""
        left = tries or self._settings.http_tries
        wait = self._settings.retry_wait
        while True:
            try:
                return call()
            except (OSError, ValueError, KeyError, AttributeError) as error:  # requests, json, enums, missing fields
                failure = _translate(name, error)
                left -= 1
                if not left or not failure.is_worth_retry:
                    raise failure from error
                asked_for = _retry_after(error)
            self._clock.sleep(min(max(wait, asked_for), LONGEST_WAIT))
            wait *= 2


def _translate(name: str, error: Exception) -> EliasError:
    response = _response(error)
    status = getattr(response, "status_code", None)
    if status == 401:
        return ConfigError("Kaggle does not accept these credentials", fix=CREDENTIALS_FIX)
    if status in (403, 404):
        return NotFound(f"Kaggle knows no such thing ({name})", fix="look at kaggle.com, then: elias run resume")
    said = re.sub(r"\?\S+", "?…", str(error))[:200]  # signed addresses are keys
    return BackendError(
        f"Kaggle could not be asked ({name}): {type(error).__name__}: {said}",
        fix="check the network and kaggle.com/status; the run tries again by itself",
        kept="every checkpoint that came home",
    )


def _response(error: BaseException) -> Any:
    """Of an HTTP error, which the client turns into a bare ValueError now and then."""
    response = getattr(error, "response", None)
    return getattr(error.__context__, "response", None) if response is None else response


def _retry_after(error: Exception) -> timedelta:
    headers = getattr(_response(error), "headers", None) or {}
    text = str(headers.get("Retry-After", ""))
    return timedelta(seconds=int(text)) if text.isdigit() else timedelta(0)


def _refused_push(message: str) -> EliasError:
    lower = message.lower()
    if "session count" in lower:
        return QuotaExhausted(f"Kaggle: {message}", fix="wait until another session of this account ends")
    if "quota" in lower:
        return QuotaExhausted(
            f"Kaggle: {message}", fix="wait for the weekly refresh, or train elsewhere: --strategy local"
        )
    return Refused(
        f"Kaggle refused the kernel: {message}",
        fix="look at kaggle.com/settings (phone verified?) and at kaggle.com/code",
    )


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
