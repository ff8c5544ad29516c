"""`elias demo kaggle`: the whole Kaggle strategy against the emulated service; every line says so."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from elias.cli.output import Json, emit_json
from elias.errors import BackendError, InputError

app = typer.Typer(add_completion=False, help="Shows a strategy without an account.")
SOURCES = ("heapq.py", "bisect.py")
CONFIG = """\
[backends.kaggle]
base_url = "{url}"
poll_every = "1s"
margin = "1m"
"""


@app.command()
def demo(
    what: Annotated[str, typer.Argument(help="Which: kaggle.")] = "kaggle",
    base: Annotated[str, typer.Option(help="tiny or starter.")] = "tiny",
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps, in two sessions.")] = 8,
    home: Annotated[Path | None, typer.Option(help="Kept afterwards.  [default: a temporary folder]")] = None,
    json: Json = False,
) -> None:
    """Capture, corpus, two sealed Kaggle sessions, a verified model: for real, but on an emulated Kaggle."""
    if what != "kaggle":
        raise InputError(f"there is no demo called {what!r}", fix="elias demo kaggle")
    from elias.testing.kaggle_emulator import KaggleEmulator

    said = redirect_stdout(sys.stderr if json else sys.stdout)
    with said, tempfile.TemporaryDirectory(prefix="elias-demo-") as scratch:
        place = (home or Path(scratch)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        with KaggleEmulator(place / "emulated-kaggle") as emulated:
            (place / "node").mkdir(exist_ok=True)
            (place / "node" / "config.toml").write_text(CONFIG.format(url=emulated.url))
            _walk(place, base, steps)
            pushed, left = len(emulated.disk.requests("SaveKernel")), _left(emulated.disk.root)
    if json:
        emit_json({"emulated": True, "kernels_run": pushed, "left_there": left})
    else:
        _say(f"{pushed} kernels were pushed and run; what is left there: {', '.join(left) or 'nothing'}")


def _walk(place: Path, base: str, steps: int) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    _run(place, "init")
    for source in SOURCES:
        _run(place, "capture", "code", str(library / source))
    _run(place, "corpus", "build")
    _run(place, "kaggle", "quota")
    _run(place, "plan", "--strategy", "kaggle", "--base", base)
    train = ["--base", base, "--steps", str(steps), "--segment-steps", str(-(-steps // 2)), "--sequence-length", "512"]
    _run(place, "train", "--strategy", "kaggle", *train, "--yes")
    _run(place, "model", "verify", "latest")


def _run(place: Path, *words: str) -> None:
    """One command as a person would type it, each line of what it prints marked. Raises BackendError when it fails."""
    _say(f"$ elias {' '.join(words)}")
    command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(place)
    ) as process:
        for line in process.stdout or ():
            _say(f"  {line.rstrip()}")
    if process.returncode:
        raise BackendError(
            f"emulated: that command left with exit code {process.returncode}",
            fix="its own lines above say why (emulated)",
        )


def _environment(place: Path) -> dict[str, str]:
    """No credentials of the person who looks: nothing of this demo leaves the machine."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("KAGGLE_", "ELIAS_"))}
    account = {"KAGGLE_USERNAME": "emulated", "KAGGLE_KEY": "none", "KAGGLE_CONFIG_DIR": str(place / "no-credentials")}
    return kept | account | {"ELIAS_HOME": str(place / "node"), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def _left(root: Path) -> list[str]:
    return [path.name for kind in ("kernels", "datasets") for path in root.glob(f"{kind}/*/*")]


def _say(line: str) -> None:
    print(f"emulated | {line}", flush=True)
