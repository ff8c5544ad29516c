"""`python -m elias.testing.kaggle_emulator --root DIR --port N`."""

import argparse

from elias.testing.kaggle_emulator.app import serve

parser = argparse.ArgumentParser(description="An emulated Kaggle on loopback. Nothing leaves this machine.")
parser.add_argument("--root", required=True, help="folder for its state")
parser.add_argument("--port", type=int, default=8017)
serve(parser.parse_args())
