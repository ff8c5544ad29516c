"""A notebook of one cell that makes the machine behind it a worker: on Colab, or on any Jupyter."""

from __future__ import annotations

import json
from typing import Any

from elias_trainer.contract import Digest

CELL = """\
# Works for the node {node} until you interrupt this cell, which saves a checkpoint first. The token is good once.
import hashlib, importlib.util, os, signal, subprocess, sys, urllib.request

URL, TOKEN, DIGEST = {url}, {token}, {digest}

program = os.path.abspath("elias-worker.pyz")
asked = urllib.request.Request(URL + "/worker.pyz", headers={{"User-Agent": "elias-worker"}})
with urllib.request.urlopen(asked, timeout=60) as answer:
    data = answer.read()
if hashlib.sha256(data).hexdigest() != DIGEST:
    raise SystemExit("the node gives away another program than this notebook was made for: elias worker notebook")
with open(program, "wb") as file:
    file.write(data)
needed = ["torch", "transformers", "peft", "accelerate", "safetensors", "pyrage"]
if lacking := [name for name in needed if importlib.util.find_spec(name) is None]:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *lacking], check=True)
words = [sys.executable, "-I", "-u", program, "join", URL, TOKEN, "--folder", os.path.abspath("elias-worker")]
worker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
while True:
    try:
        for line in worker.stdout:
            print(line, end="", flush=True)
        break
    except KeyboardInterrupt:
        worker.send_signal(signal.SIGINT)
if worker.wait():
    raise SystemExit(f"the worker ended with exit code {{worker.returncode}}; its last line says why")
"""
NBFORMAT = 4
"""https://nbformat.readthedocs.io/en/latest/format_description.html; minor 5 asks for cell ids."""


def notebook(url: str, token: str, program: Digest, node: str) -> dict[str, Any]:
    """As JSON; `program` is the digest of what `url` gives away as worker.pyz. Whoever has it may join."""
    words = {"url": json.dumps(url), "token": json.dumps(token), "digest": json.dumps(program.hex)}
    source = CELL.format(node=json.dumps(node), **words)
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "elias-worker",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
    return {
        "nbformat": NBFORMAT,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "accelerator": "GPU",
            "colab": {"gpuType": "T4", "provenance": []},
        },
        "cells": [cell],
    }
