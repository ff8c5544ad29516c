"""How a job ends, and what it leaves in S3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from elias.testing.emulated import Json
from elias.testing.sagemaker_emulator.staging import Stage, pack


@dataclass(frozen=True, slots=True)
class End:
    secondary: str
    """A secondary status that is final."""
    reason: str | None = None
    """FailureReason, of which 1,024 characters are kept."""

    @classmethod
    def of_exit(cls, code: int, tree: Path) -> Self:
        """Of a container that ended by itself."""
        if code == 0:
            return cls("Completed")
        failure = tree / "output" / "failure"
        text = failure.read_text(encoding="utf-8", errors="replace") if failure.is_file() else ""
        ending = f", exit code: {code}"
        room = 1024 - len("AlgorithmError: ") - len(ending)
        return cls("Failed", f"AlgorithmError: {text[:room]}{ending}")


class Outputs:
    """What lies in /opt/ml/model and /opt/ml/output/data when the container has ended."""

    def __init__(self, request: Json, tree: Path, *, is_corrupted: bool) -> None:
        self._tree = tree
        self._is_corrupted = is_corrupted
        config = request["OutputDataConfig"]
        self._uri = f"{config['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output"
        self._kms_key = config.get("KmsKeyId")
        self._is_packed = config.get("CompressionType", "GZIP") == "GZIP"

    def upload(self, stage: Stage, *, is_failed: bool) -> str | None:
        """The model's URI; None for a failed job, which leaves its output only."""
        data = self._tree / "output" / "data"
        if self._is_packed:
            stage.upload(pack(data, self._tree / "output.tar.gz"), f"{self._uri}/output.tar.gz", self._kms_key)
        else:
            stage.upload_folder(data, f"{self._uri}/data", self._kms_key)
        if is_failed:
            return None
        if not self._is_packed:
            stage.upload_folder(self._tree / "model", f"{self._uri}/model", self._kms_key)
            return f"{self._uri}/model/"
        packed = pack(self._tree / "model", self._tree / "model.tar.gz")
        if self._is_corrupted:
            packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
        stage.upload(packed, f"{self._uri}/model.tar.gz", self._kms_key)
        return f"{self._uri}/model.tar.gz"
