"""The trainer's command line: `python -m elias_trainer <verb>`, or `python -I trainer.pyz <verb>`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

_ELSEWHERE = {
    "score": "elias_trainer.score",
    "serve": "elias_trainer.serve",
    "carry": "elias_trainer.carry",
    "join": "elias_trainer.worker",
}
"""Verbs with a `main(argv) -> int` of their own."""
_ELSEWHERE_HELP = {
    "score": "held-out loss of a base and adapters",
    "serve": "answer over loopback HTTP",
    "carry": "carry a segment out on a foreign machine",
    "join": "work for a node that this machine can reach",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one verb; its exit code. Nothing heavy is imported for verbs that do not need it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _ELSEWHERE:
        return int(importlib.import_module(_ELSEWHERE[words[0]]).main(words[1:]))
    given = _parser().parse_args(words)
    match given.verb:
        case "train":
            from elias_trainer.segment import train

            return train(given.job, given.out, given.cache)
        case "archive":
            from elias_trainer.archive import build

            print(build(given.out))
        case "tiny":
            from elias_trainer.contract import base_digest
            from elias_trainer.tiny import write_tiny

            print(base_digest(write_tiny(given.out, warm_steps=given.warm)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="elias_trainer", description="Trains one segment of a run: files in, files out."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    train = verbs.add_parser("train", help="carry out a job.json")
    train.add_argument("--job", type=Path, required=True, help="job.json; its paths are relative to its folder")
    train.add_argument("--out", type=Path, required=True, help="where events, checkpoints, adapter and result go")
    train.add_argument("--cache", type=Path, help="where converted models are kept between runs")
    archive = verbs.add_parser("archive", help="write this trainer as one file and print its digest")
    archive.add_argument("--out", type=Path, required=True)
    tiny = verbs.add_parser("tiny", help="write the test model `tiny` and print its digest")
    tiny.add_argument("--out", type=Path, required=True)
    tiny.add_argument("--warm", type=int, default=0, metavar="STEPS", help="full fine-tuning steps on made-up text")
    for verb, what in _ELSEWHERE_HELP.items():
        verbs.add_parser(verb, help=what, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
