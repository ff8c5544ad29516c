"""The SageMaker strategy from capture to a verified model and its bill, on an emulated AWS; every line says 'emulated'.

    make demo-sagemaker     or: python demo/on_sagemaker.py [--base starter] [--steps 8]
The same as `elias demo sagemaker`.
"""

import sys

from elias.cli import main

main(["demo", "sagemaker", *sys.argv[1:]])
