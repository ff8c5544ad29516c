"""The Kaggle strategy from capture to a verified model, against an emulated Kaggle; every line says 'emulated'.

    make demo-kaggle        or: python demo/on_kaggle.py [--base starter] [--steps 8]
The same as `elias demo kaggle`.
"""

import sys

from elias.cli import main

main(["demo", "kaggle", *sys.argv[1:]])
