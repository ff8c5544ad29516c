"""`elias demo kaggle`: two sealed sessions on an emulated Kaggle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elias.cli.demo_walk import Training, Walk, say

CONFIG = """\
[backends.kaggle]
base_url = "{url}"
poll_every = "1s"
margin = "1m"
"""


def on_kaggle(place: Path, training: Training) -> dict[str, Any]:
    """What was run there, and what is left."""
    from elias.testing.kaggle_emulator import KaggleEmulator

    account = {"KAGGLE_USERNAME": "emulated", "KAGGLE_KEY": "none", "KAGGLE_CONFIG_DIR": str(place / "no-credentials")}
    with KaggleEmulator(place / "emulated-kaggle") as emulated:
        (place / "node" / "config.toml").write_text(CONFIG.format(url=emulated.url))
        _walk(Walk(place=place, account=account), training)
        pushed, left = len(emulated.disk.requests("SaveKernel")), _left(emulated.disk.root)
    say(f"{pushed} kernels were pushed and run; what is left there: {', '.join(left) or 'nothing'}")
    return {"kernels_run": pushed, "left_there": left}


def _walk(walk: Walk, training: Training) -> None:
    walk.to_a_corpus()
    walk.run("kaggle", "quota")
    walk.run("plan", "--strategy", "kaggle", "--base", training.base)
    steps = ["--steps", str(training.steps), "--segment-steps", str(-(-training.steps // 2))]
    walk.run("train", "--strategy", "kaggle", "--base", training.base, *steps, "--sequence-length", "512", "--yes")
    walk.run("model", "verify", "latest")


def _left(root: Path) -> list[str]:
    return [path.name for kind in ("kernels", "datasets") for path in root.glob(f"{kind}/*/*")]
