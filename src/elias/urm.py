"""The resource manager's calls under their names in the seed system."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from elias.errors import DigestMismatch, InputError


class CloudTraining:
    """`URM.CloudTraining`."""

    @staticmethod
    def submit_kaggle_job(training_data: str | Path, notebook_template: str | Path | None = None) -> str:
        """Begin a run on Kaggle with what is captured at `training_data`; its id.

        The node carries it while `elias up` runs, and so does `elias run watch ID`. `notebook_template` is a file made
        from `elias kaggle template`; None is the configured one. Raises what `elias train` raises.
        """
        from elias.config import load
        from elias.services.runs import Wanted, new_run
        from elias.wiring.corpus import corpus_from_data
        from elias.wiring.kaggle import check_template
        from elias.wiring.train import default_base, open_training
        from elias_trainer.contract import BaseModel, Recipe

        template = Path(notebook_template) if notebook_template is not None else None
        if template is not None:
            if not template.is_file():
                raise InputError(f"there is no notebook template {template}", fix="elias kaggle template --out FILE")
            check_template(str(template))
        config = load()
        with open_training(config) as training:
            corpus = corpus_from_data(config, training.stores, Path(training_data))
            base = BaseModel(reference=default_base(config)[0])
            run = new_run(
                Wanted(strategy="kaggle", base=base, recipe=Recipe()), corpus, training.coordinator.means.clock
            )
            if template is not None:
                folder = config.home / "backends" / "kaggle" / "templates"
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(template, folder / f"{run.id}{template.suffix}")
            training.runs.begin(run)
        return run.id

    @staticmethod
    def monitor_sagemaker_job(job_id: str) -> dict[str, Any]:
        """How a training job stands: `state`, `note`, `cost_usd` so far, `accelerator`, `failure`. Changes nothing.

        `job_id` is a job's name, a segment or a run. Raises NotFound, ConfigError or BackendError.
        """
        from elias.config import load
        from elias.wiring.backends import backend_context
        from elias.wiring.plugins import load_plugin

        backend = load_plugin("elias.backends", "sagemaker")(backend_context(load(), "sagemaker"))
        status = backend.monitor(job_id)
        backend.close()
        return {
            "job": job_id,
            "state": str(status.state),
            "note": status.note,
            "cost_usd": status.cost.micro_usd / 1_000_000,
            "accelerator": status.accelerator,
            "failure": status.failure.message if status.failure else None,
        }

    @staticmethod
    def download_trained_model(artifact_uri: str) -> Path:
        """The folder of the adapter that a training at `place://…`, such as `kaggle://owner/slug`, has left, each file
        compared with the digest that its result names. Raises NotFound, InputError, BackendError or DigestMismatch.
        """
        from elias.config import load
        from elias.wiring.by_hand import download

        return download(load(), artifact_uri)

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
