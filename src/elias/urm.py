"""The resource manager's calls under their names in the seed system."""

from __future__ import annotations

from pathlib import Path

from elias.errors import DigestMismatch, InputError


class CloudTraining:
    """`URM.CloudTraining`."""

    @staticmethod
    def validate_cloud_model(model_path: str | Path, blockchain_hash: str) -> bool:
        """True when the folder is a whole, signed model and its digest is the one that was published.

        `blockchain_hash` is written `sha256:…`, `0x…` or as 64 hex digits. Anything else than a valid model raises:
        DigestMismatch, BadSignature, BadReceipt or BadStructure naming the file, NotFound, or InputError.
        """
        from elias.config import load
        from elias.services.verify import verify_artifact
        from elias.wiring.attest import node_signer
        from elias_trainer.contract import Digest

        bare = blockchain_hash.strip().lower().removeprefix("sha256:").removeprefix("0x")
        try:
            published = Digest(f"sha256:{bare}")
        except ValueError as error:
            raise InputError(
                f"{blockchain_hash!r} is not a SHA-256 digest",
                fix="give 64 hex digits, as elias model show prints them",
            ) from error
        found = verify_artifact(Path(model_path), node_signer(load()))
        if found.digest != published:
            raise DigestMismatch(
                f"{model_path} is {found.digest.short}, but {published.short} was published",
                fix="get the model again from where it came; do not use this copy",
            )
        return True
