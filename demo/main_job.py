"""The main job on one machine, as a person would do it: real sessions in, a better model in service.

Every line under a `$` is what that command printed. Nothing is simulated. Takes a few minutes on two cores.
    make demo            or: python demo/main_job.py [--steps 24]
State is kept in .demo/; `rm -r .demo` starts from nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo" / "home"
PORT = 4151
BIN = Path(sys.executable).parent
LIBRARY = Path(sysconfig.get_path("stdlib"))
SOURCES = ("statistics.py", "fractions.py", "difflib.py", "textwrap.py", "heapq.py", "bisect.py", "random.py", "json")
SIGNATURE = 'def clamp(value, low, high):\n    """Return value, but no less than low and no more than high."""'

phases: dict[str, float] = {}


@contextmanager
def phase(name: str) -> Iterator[None]:
    print(f"\n== {name}", flush=True)
    start = time.monotonic()
    yield
    phases[name] = round(time.monotonic() - start, 1)


def run(command: str, *, allowed: tuple[int, ...] = (0,)) -> int:
    """Show the command, run it, let it print; any exit code but the allowed ones ends the demo."""
    print(f"$ {command}", flush=True)
    words = shlex.split(command)
    done = subprocess.run([str(BIN / words[0]), *words[1:]], env=environment(), cwd=ROOT, check=False)
    if done.returncode not in allowed:
        sys.exit(f"the demo stops here: that command left with exit code {done.returncode}")
    return done.returncode


def answer(command: str) -> object:
    """The JSON answer of a command, which is not shown."""
    words = shlex.split(command)
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], env=environment(), cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def environment() -> dict[str, str]:
    return os.environ | {
        "ELIAS_HOME": str(HOME),
        "ELIAS_NODE_PORT": str(PORT),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
    }


def ask(title: str) -> None:
    """One question through the official `openai` client, as any program would put it."""
    from openai import OpenAI

    from elias.domain.prompt import code_prompt

    client = OpenAI(
        base_url=f"http://127.0.0.1:{PORT}/v1", api_key=os.environ.get("ELIAS_API_KEY", "not-needed-on-loopback")
    )
    model = client.models.list().data[0].id
    reply = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": code_prompt(SIGNATURE)}], max_tokens=120, temperature=0
    )
    print(f"{title}: {model} answers through the openai client, asked to complete:\n{SIGNATURE}")
    print((reply.choices[0].message.content or "").strip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16, help="optimizer steps of four sequences")
    parser.add_argument("--phases", type=Path, help="write the seconds by phase to this file, as JSON")
    given = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    with phase("a node"):
        run("elias init")
        run("elias doctor")
    with phase("capture: this machine's Python library, and this repository's own history"):
        for source in SOURCES:
            run(f"elias capture code {LIBRARY / source} --label public --stage 2")
        run(f"elias capture git {ROOT} --label public --stage 4 --limit 40")
        run("elias corpus build --heldout-share 0.08")
    with phase("serve: the base as it is"):
        run("elias up --detach")
    try:
        serve_and_improve(given.steps)
    finally:
        run("elias down")
    print("\n== seconds by phase")
    for name, seconds in phases.items():
        print(f"{seconds:8.1f}  {name}")
    if given.phases:
        given.phases.write_text(json.dumps(phases))


def serve_and_improve(steps: int) -> None:
    with phase("before"):
        ask("before")
    with phase("train"):
        run(
            f"uff_cli train --strategy local --base starter --corpus latest --steps {steps} --sequence-length 320 --yes"
        )
    with phase("prove"):
        run("elias model list")
        run("elias model verify latest")
    with phase("judge"):
        accepted = run("elias model judge latest", allowed=(0, 4)) == 0
    if not accepted:
        sys.exit("the gate refused the candidate; the base stays in service")
    with phase("deploy"):
        run("elias model deploy latest --yes")
        run("elias status")
    with phase("after"):
        ask("after")
    with phase("roll back"):
        run("elias model rollback --yes")
        run("elias status")


if __name__ == "__main__":
    main()
