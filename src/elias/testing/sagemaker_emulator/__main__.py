"""`python -m elias.testing.sagemaker_emulator --root DIR --port N`."""

import argparse
from pathlib import Path

from elias.testing.sagemaker_emulator.app import serve

parser = argparse.ArgumentParser(description="An emulated SageMaker on loopback. Nothing leaves this machine.")
parser.add_argument("--root", required=True, type=Path, help="folder for its state")
parser.add_argument("--port", type=int, default=8018)
arguments = parser.parse_args()
serve(arguments.root, arguments.port)
