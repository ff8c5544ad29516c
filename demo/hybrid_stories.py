"""The three stories of docs/hybrid.md, told anew: each command is really typed, against emulated places.

    python demo/hybrid_stories.py           writes what the commands print into docs/hybrid.md
    python demo/hybrid_stories.py free      that story alone
Takes about three minutes. What is printed stands between marks, and nothing else of the page is touched.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "hybrid.md"
CONFIG = """\
[node]
port = {port}

[training]
base = "tiny"

[serving]
engine = "reference"

[backends.kaggle]
base_url = "{kaggle}"
base_source = "you/deepseek-coder"
http_tries = 1

[backends.sagemaker]
endpoint_url = "{sagemaker}"
region = "us-east-1"
bucket = "elias-123456789012-us-east-1"
role = "arn:aws:iam::123456789012:role/elias-training-us-east-1"
http_tries = 1
"""
LOGGED = re.compile(r"[a-z]+\.[a-z_]+ \w+=")
"""Lines of the program's log, such as `sagemaker.quota_unread type=…`: the page says that they are left out."""
NOWHERE = "http://127.0.0.1:9"
"""Where nothing listens: what a network that is gone looks like."""
DEEPSEEK = "--strategy hybrid --base deepseek-ai/deepseek-coder-6.7b-instruct --method qlora --gradient-checkpointing"
TINY = "--strategy hybrid --base tiny --steps 8 --sequence-length 256"


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    command: str
    lines: int = 40
    """Of its answer, shown at most; the page says that there are more."""


STORIES = {
    "free": (Typed(command=f"plan {DEEPSEEK} --steps 3000 --by 2d --budget 15usd --picture -", lines=15),),
    "overflow": (
        Typed(command=f"plan {DEEPSEEK} --steps 7000 --by friday --budget 15usd --picture -", lines=24),
        Typed(command=f"plan {DEEPSEEK} --steps 7000 --budget 15usd --what-if --picture -", lines=40),
    ),
    "alone": (
        Typed(command=f"plan {TINY} --by friday --budget 15usd", lines=6),
        Typed(command="up"),
        Typed(command=f"train {TINY} --by friday --budget 15usd --yes"),
        Typed(command="status"),
        Typed(command="down"),
    ),
}


@dataclass(frozen=True, slots=True)
class Node:
    home: Path

    def types(self, command: str) -> str:
        """What it prints, progress included."""
        account = {"KAGGLE_USERNAME": "emulated", "KAGGLE_KEY": "none", "KAGGLE_CONFIG_DIR": str(self.home / "none"),
                   "AWS_ACCESS_KEY_ID": "AKIAEMULATED", "AWS_SECRET_ACCESS_KEY": "none",
                   "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": str(self.home / "none"),
                   "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "none")}  # fmt: skip
        environment = {**os.environ, **account, "ELIAS_HOME": str(self.home), "COLUMNS": "90", "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, "-c", "from elias.cli import main; main()", *command.split(" ")]
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"$ elias {command}\n{done.stdout}\nleft with {done.returncode}")
        return done.stdout

    def ends(self) -> None:
        """Also where a story broke off in the middle."""
        if (self.home / "node.json").exists():
            self.types("down")


@contextmanager
def a_node(*, with_clouds: bool) -> Iterator[Node]:
    """With a corpus, and with the emulated clouds or with none that answers."""
    from elias.testing.kaggle_emulator import KaggleEmulator
    from elias.testing.sagemaker_emulator import SageMakerEmulator

    with tempfile.TemporaryDirectory(prefix="elias-story-") as scratch:
        root, node = Path(scratch), Node(Path(scratch) / "node")
        node.home.mkdir()
        with KaggleEmulator(root / "kaggle") as kaggle, SageMakerEmulator(root / "aws") as sagemaker:
            urls = (kaggle.url, sagemaker.url) if with_clouds else (NOWHERE, NOWHERE)
            config = CONFIG.format(kaggle=urls[0], sagemaker=urls[1], port=_free_port())
            (node.home / "config.toml").write_text(config)
            node.types("init")
            node.types(f"capture code {sysconfig.get_path('stdlib')}/heapq.py --label shared")
            node.types("corpus build")
            try:
                yield node
            finally:
                node.ends()


def told(name: str) -> str:
    """A story's commands and answers, as they stand in the page."""
    with a_node(with_clouds=name != "alone") as node:
        return "\n\n".join(block(typed, node.types(typed.command), node.home) for typed in STORIES[name])


def block(typed: Typed, answer: str, home: Path) -> str:
    lines = [line.rstrip() for line in answer.replace(str(home), "~/.elias").splitlines()]
    lines = [line for line in lines if not LOGGED.match(line)]
    more = [f"… {len(lines) - typed.lines} lines more"] if len(lines) > typed.lines else []
    shown = [f"$ elias {typed.command}", *lines[: typed.lines], *more]
    return "\n".join(f"    {line}".rstrip() for line in shown)


def placed(page: str, name: str, text: str) -> str:
    """The page with a story's part made new. Raises SystemExit where it has no such part."""
    marks = re.compile(rf"(<!-- begin {name} -->).*?(<!-- end {name} -->)", re.DOTALL)
    if not marks.search(page):
        raise SystemExit(f"{PAGE} has no place for {name!r}")
    return marks.sub(lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", page)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> None:
    for name in sys.argv[1:] or list(STORIES):
        placed(PAGE.read_text(encoding="utf-8"), name, "")
        text = told(name)
        PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")
        print(f"{name}: {len(text.splitlines())} lines", flush=True)


if __name__ == "__main__":
    main()
