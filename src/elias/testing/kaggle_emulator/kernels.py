"""The kernel calls: push, status, output, quota."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from elias.testing.emulated import read, write
from elias.testing.kaggle_emulator.datasets import CallError
from elias.testing.kaggle_emulator.disk import Disk, latest_version
from elias.testing.kaggle_emulator.faults import Fault, FaultKind

Json = dict[str, Any]
SESSION_FAULTS = {
    FaultKind.SESSION_TIMEOUT,
    FaultKind.VANISHED,
    FaultKind.CANCELLED_FROM_WEB,
    FaultKind.SESSION_ERROR,
}
LONGEST_SESSION_S = 12 * 3600.0
ENDS_WITHIN_S = 120.0
"""Far above what a session takes to begin on a busy machine: it hears that it is to end once it has begun."""


class Kernels:
    def __init__(self, disk: Disk, base_url: str) -> None:
        self._disk = disk
        self._base_url = base_url

    def save_kernel(self, body: Json, user: str, fault: Fault | None) -> Json:
        refusal = self._refusal(body, user, fault)
        if refusal is not None:
            return refusal
        slug = _slugify(body.get("newTitle") or body["slug"].split("/")[-1])
        folder = self._disk.kernel(user, slug)
        number = zlib.crc32(f"{user}/{slug}".encode())
        kernel = read(folder / "kernel.json") or {"id": number, "owner": user, "slug": slug}
        write(folder / "kernel.json", kernel | {"title": body.get("newTitle") or slug})
        number = latest_version(folder) + 1
        version = folder / "versions" / str(number)
        write(version / "request.json", body)
        if body.get("kernelExecutionType") != "QUICK_SAVE":
            self._start(version, body, fault)
        ref = f"/code/{user}/{slug}"
        return {"ref": ref, "url": f"{self._base_url}{ref}", "versionNumber": number, "kernelId": kernel["id"]}

    def get_kernel_session_status(self, body: Json, user: str, fault: Fault | None) -> Json:
        version = self.version(body, user)
        session = read(version / "session.json")
        if session is None:
            return {"status": "NEW_SCRIPT"}
        return {"status": session["status"], "failureMessage": session.get("failure") or ""}

    def list_kernel_session_output(self, body: Json, user: str, fault: Fault | None) -> Json:
        version = self.version(body, user)
        session = read(version / "session.json") or {}
        if not session.get("ended_at"):
            return {"files": [], "log": ""}
        root = version / "kaggle" / "working"
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        first, size = int(body.get("pageToken") or 0), int(body.get("pageSize") or self._disk.settings.page_size)
        page, rest = names[first : first + size], names[first + size :]
        owner_slug = version.relative_to(self._disk.root / "kernels").as_posix()
        return {
            "files": [{"fileName": name, "url": f"{self._base_url}/download/{owner_slug}/{name}"} for name in page],
            "log": json.dumps(self.log(version)),
            "nextPageToken": str(first + size) if rest else "",
        }

    def get_kernel(self, body: Json, user: str, fault: Fault | None) -> Json:
        version = self.version(body, user)
        kernel, request = read(version.parent.parent / "kernel.json") or {}, read(version / "request.json") or {}
        metadata = {
            "id": kernel["id"],
            "ref": f"{user}/{kernel['slug']}",
            "title": kernel["title"],
            "author": user,
            "slug": kernel["slug"],
            "isPrivate": request.get("isPrivate", False),
            "enableGpu": request.get("enableGpu", False),
            "enableInternet": request.get("enableInternet", False),
            "datasetDataSources": request.get("datasetDataSources", []),
            "machineShape": request.get("machineShape", ""),
            "currentVersionNumber": latest_version(version.parent.parent),
        }
        blob = {
            "source": request.get("text", ""),
            "language": "python",
            "kernelType": request.get("kernelType", "script"),
        }
        return {"metadata": metadata, "blob": blob | {"slug": kernel["slug"]}}

    def list_kernels(self, body: Json, user: str, fault: Fault | None) -> Json:
        found = [read(path) or {} for path in sorted(self._disk.root.glob(f"kernels/{user}/*/kernel.json"))]
        wanted = body.get("search", "")
        rows = [{"ref": f"{user}/{k['slug']}", "title": k["title"], "slug": k["slug"], "author": user} for k in found]
        return {"kernels": [row for row in rows if wanted in row["slug"]]}

    def cancel_kernel_session(self, body: Json, user: str, fault: Fault | None) -> Json:
        return {"errorMessage": f"session {body.get('kernelSessionId')} is not known"}

    def delete_kernel(self, body: Json, user: str, fault: Fault | None) -> Json:
        version = self.version(body, user)
        for session in version.parent.glob("*/session.json"):
            self.end(session.parent, "CANCEL_ACKNOWLEDGED")
        self._disk.delete_kernel(version.parent.parent)
        return {}

    def get_accelerator_quota_statistics(self, body: Json, user: str, fault: Fault | None) -> Json:
        allowed = self._disk.settings.gpu_seconds_a_week
        return {
            "quotaRefreshTime": self._disk.next_refresh().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "gpuQuota": {
                "timeUsed": f"{int(self._disk.gpu_seconds_used())}s",
                "timeReserved": f"{int(self._disk.gpu_seconds_reserved())}s",
                "totalTimeAllowed": f"{int(allowed)}s",
            },
            "tpuQuota": {"timeUsed": "0s", "timeReserved": "0s", "totalTimeAllowed": "72000s"},
        }

    def log(self, version: Path) -> list[Json]:
        path = version / "log.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # the session may be in the middle of a line
        return [json.loads(line) for line in whole.splitlines()]

    def end(self, version: Path, status: str) -> None:
        """Stop a session from outside, as the web page's button does."""
        write(version / "stop.json", {"status": status})
        deadline = time.monotonic() + ENDS_WITHIN_S
        while time.monotonic() < deadline:
            session = read(version / "session.json")
            if session is None or session.get("ended_at"):
                return
            time.sleep(0.05)
        raise CallError(500, "the emulated session did not end")

    def version(self, body: Json, user: str) -> Path:
        """The folder of the kernel's version that a request names, the newest one by default."""
        owner, slug = body.get("userName", user), body.get("kernelSlug", "")
        folder = self._disk.kernel(owner, slug)
        number = int(body["versionLabel"].lstrip("vV")) if body.get("versionLabel") else latest_version(folder)
        version = folder / "versions" / str(number)
        if owner != user or not version.exists():
            raise CallError(404 if owner == user else 403, f"Permission 'kernels.get' was denied on {owner}/{slug}")
        if (read(version / "session.json") or {}).get("vanished"):
            raise CallError(404, f"kernel {owner}/{slug} was not found")
        return version

    def _refusal(self, body: Json, user: str, fault: Fault | None) -> Json | None:
        kind = fault.kind if fault else None
        sources = body.get("datasetDataSources", [])
        unknown = [ref for ref in sources if not latest_version(self._disk.dataset(*_owner_slug(ref)))]
        if kind is FaultKind.INVALID_SOURCES or unknown:
            return {"invalidDatasetSources": unknown or sources, "versionNumber": 0}
        if fault and kind is FaultKind.REFUSED:
            return {"error": fault.message}
        if body.get("slug", "").split("/")[0] != user:
            raise CallError(403, "Permission 'kernels.update' was denied")
        if body.get("kernelType") == "notebook" and not _has_kernelspec(body.get("text", "")):
            return {"error": "The notebook has no metadata.kernelspec"}
        if not body.get("enableGpu"):
            return None
        if self._disk.gpu_sessions_running() >= self._disk.settings.gpu_sessions_at_once:
            limit = self._disk.settings.gpu_sessions_at_once
            return {"error": f"Maximum batch GPU session count of {limit} reached."}
        spent = self._disk.gpu_seconds_used() + self._disk.gpu_seconds_reserved()
        if spent >= self._disk.settings.gpu_seconds_a_week:
            return {"error": "Maximum weekly GPU quota reached."}
        return None

    def _start(self, version: Path, body: Json, fault: Fault | None) -> None:
        settings = self._disk.settings
        tree = version / "kaggle"
        (tree / "working").mkdir(parents=True)
        for ref in body.get("datasetDataSources", []):
            self._mount(ref, tree / "input", stale=bool(fault and fault.kind is FaultKind.STALE_DATASET))
        limit_s = float(body.get("sessionTimeoutSeconds") or LONGEST_SESSION_S)
        left_s = limit_s
        if body.get("enableGpu"):
            left_s = settings.gpu_seconds_a_week - self._disk.gpu_seconds_used()
        plan = {
            "queue_s": settings.queue_s,
            "limit_s": min(limit_s, left_s),
            "fault": fault.kind if fault and fault.kind in SESSION_FAULTS else None,
            "fault_s": fault.seconds if fault else 0.0,
            "fault_once": fault.once if fault else "",
            "gpus": _gpus(body, fault),
        }
        write(version / "plan.json", plan)
        offset_s = (self._disk.now().timestamp()) - time.time()
        session = {
            "status": "QUEUED",
            "gpu": body.get("enableGpu", False),
            "started_at": time.time(),
            "offset_s": offset_s,
        }
        write(version / "session.json", session)
        with (version / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(  # outlives a restart of the emulator
                [sys.executable, "-m", "elias.testing.kaggle_emulator.session", str(version)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        threading.Thread(target=supervisor.wait, daemon=True).start()

    def _mount(self, ref: str, inputs: Path, *, stale: bool) -> None:
        owner, slug = _owner_slug(ref)
        folder = self._disk.dataset(owner, slug)
        ready = [n for n in range(1, latest_version(folder) + 1) if self._is_ready(folder / "versions" / str(n))]
        number = (ready[:-1] or ready)[-1] if stale else ready[-1] if ready else 0
        target = inputs / "datasets" / owner / slug if self._disk.settings.newer_mounts else inputs / slug
        if number:
            shutil.copytree(folder / "versions" / str(number) / "files", target)

    def _is_ready(self, version: Path) -> bool:
        known = read(version / "version.json")
        return known is not None and self._disk.now().timestamp() >= float(known["ready_at"])


def _gpus(body: Json, fault: Fault | None) -> list[str]:
    if not body.get("enableGpu"):
        return []
    if fault and fault.kind is FaultKind.WRONG_ACCELERATOR:
        return ["Tesla P100-PCIE-16GB"]
    return ["Tesla T4", "Tesla T4"]


def _has_kernelspec(text: str) -> bool:
    return "kernelspec" in json.loads(text).get("metadata", {})


def _owner_slug(ref: str) -> tuple[str, str]:
    owner, slug, *_ = ref.split("/")
    return owner, slug


def _slugify(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
