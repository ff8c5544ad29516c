"""The dataset calls: blobs, versions, processing."""

from __future__ import annotations

import shutil
import tarfile
import uuid
import zipfile
from pathlib import Path
from typing import Any

from elias.testing.emulated import read, write
from elias.testing.kaggle_emulator.disk import Disk, latest_version
from elias.testing.kaggle_emulator.faults import Fault, FaultKind

Json = dict[str, Any]


class CallError(Exception):
    """An HTTP error of the emulated service."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Datasets:
    def __init__(self, disk: Disk, base_url: str) -> None:
        self._disk = disk
        self._base_url = base_url

    def start_blob_upload(self, body: Json, user: str, fault: Fault | None) -> Json:
        token = uuid.uuid4().hex
        write(self._disk.root / "blobs" / f"{token}.json", {"name": body["name"], "size": body.get("contentLength", 0)})
        (self._disk.root / "blobs" / f"{token}.bin").touch()
        return {"token": token, "createUrl": f"{self._base_url}/upload/{token}"}

    def create_dataset(self, body: Json, user: str, fault: Fault | None) -> Json:
        owner, slug, title = body.get("ownerSlug", user), body.get("slug", ""), body.get("title", "")
        if owner != user:
            raise CallError(403, "Permission 'datasets.create' was denied")
        if not 6 <= len(title) <= 50 or not 6 <= len(slug) <= 50:
            return {"status": "error", "error": "The dataset title and slug must be between 6 and 50 characters"}
        folder = self._disk.dataset(owner, slug)
        if latest_version(folder):
            return {"status": "error", "error": f'The requested title "{title}" is already in use by a dataset.'}
        write(
            folder / "dataset.json",
            {"title": title, "owner": owner, "slug": slug, "private": body.get("isPrivate", False)},
        )
        return self._add_version(folder, body, "Initial release", fault)

    def create_dataset_version(self, body: Json, user: str, fault: Fault | None) -> Json:
        folder = self._existing(body, user)
        details = body.get("body", {})
        answer = self._add_version(folder, details, details.get("versionNotes", ""), fault)
        if details.get("deleteOldVersions"):
            newest = latest_version(folder)
            for path in folder.glob("versions/*"):
                if int(path.name) != newest:
                    shutil.rmtree(path)
        return answer

    def get_dataset_status(self, body: Json, user: str, fault: Fault | None) -> Json:
        folder = self._existing(body, user)
        version = read(folder / "versions" / str(latest_version(folder)) / "version.json") or {}
        return {"status": "READY" if self._disk.now().timestamp() >= version["ready_at"] else "BLOBS_RECEIVED"}

    def get_dataset(self, body: Json, user: str, fault: Fault | None) -> Json:
        folder = self._existing(body, user)
        return self._describe(folder)

    def list_datasets(self, body: Json, user: str, fault: Fault | None) -> Json:
        folders = sorted(path.parent for path in self._disk.root.glob(f"datasets/{user}/*/dataset.json"))
        wanted = body.get("search", "")
        return {"datasets": [self._describe(folder) for folder in folders if wanted in folder.name]}

    def list_dataset_files(self, body: Json, user: str, fault: Fault | None) -> Json:
        folder = self._existing(body, user)
        number = body.get("datasetVersionNumber") or latest_version(folder)
        root = folder / "versions" / str(number) / "files"
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {
            "datasetFiles": [
                {"name": path.relative_to(root).as_posix(), "totalBytes": path.stat().st_size} for path in files
            ]
        }

    def get_dataset_metadata(self, body: Json, user: str, fault: Fault | None) -> Json:
        folder = self._existing(body, user)
        known = read(folder / "dataset.json") or {}
        info = {
            "datasetSlug": known["slug"],
            "ownerUser": known["owner"],
            "title": known["title"],
            "isPrivate": known["private"],
        }
        return {"info": info}

    def delete_dataset(self, body: Json, user: str, fault: Fault | None) -> Json:
        shutil.rmtree(self._existing(body, user))
        return {}

    def _existing(self, body: Json, user: str) -> Path:
        owner, slug = body.get("ownerSlug", user), body.get("datasetSlug", "")
        folder = self._disk.dataset(owner, slug)
        if owner != user or not latest_version(folder):
            raise CallError(403, f"Permission 'datasets.get' was denied on {owner}/{slug}")
        return folder

    def _describe(self, folder: Path) -> Json:
        known, number = read(folder / "dataset.json") or {}, latest_version(folder)
        versions = sorted((int(path.name) for path in folder.glob("versions/*")), reverse=True)
        return {
            "ref": f"{known['owner']}/{known['slug']}",
            "title": known["title"],
            "ownerRef": known["owner"],
            "isPrivate": known["private"],
            "currentVersionNumber": number,
            "description": (read(folder / "versions" / str(number) / "version.json") or {})["description"],
            "versions": [
                {
                    "versionNumber": n,
                    "versionNotes": (read(folder / "versions" / str(n) / "version.json") or {})["notes"],
                }
                for n in versions
            ],
        }

    def _add_version(self, folder: Path, body: Json, notes: str, fault: Fault | None) -> Json:
        known, number = read(folder / "dataset.json") or {}, latest_version(folder) + 1
        version = folder / "versions" / str(number)
        files = version / "files"
        files.mkdir(parents=True)
        for entry in body.get("files", []):
            self._unpack(entry["token"], files)
        wait_s = (
            fault.seconds if fault and fault.kind is FaultKind.SLOW_PROCESSING else self._disk.settings.processing_s
        )
        description = body.get("description", "")
        ready_at = self._disk.now().timestamp() + wait_s
        write(version / "version.json", {"notes": notes, "description": description, "ready_at": ready_at})
        ref = f"{known['owner']}/{known['slug']}"
        return {"ref": ref, "url": f"{self._base_url}/datasets/{ref}", "status": "ok"}

    def _unpack(self, token: str, files: Path) -> None:
        blob = self._disk.root / "blobs" / token
        known, data = read(blob.with_suffix(".json")), blob.with_suffix(".bin")
        if known is None or data.stat().st_size != known["size"]:
            raise CallError(400, f"blob {token} is not whole")
        name = Path(known["name"]).name
        if name.endswith(".zip"):
            zipfile.ZipFile(data).extractall(files / name.removesuffix(".zip"))
        elif name.endswith(".tar"):
            with tarfile.open(data) as archive:
                # the filter is not in every Python 3.11
                safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                archive.extractall(files / name.removesuffix(".tar"), **safely)
        else:
            shutil.copyfile(data, files / name)
