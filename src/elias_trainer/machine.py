"""What this machine is made of, for the node that it works for. Standard library only."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

NEEDED = ("torch", "transformers", "peft", "safetensors", "pyrage")
"""By what the trainer does with them; pyrage is for private data alone."""
OLDEST_PYTHON = (3, 11)


def describe(folder: Path) -> dict[str, Any]:
    """`folder` is where segments will lie."""
    return {
        "name": platform.node() or "unnamed",
        "python": sys.version.split()[0],
        "is_old": sys.version_info < OLDEST_PYTHON,
        "cores": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free": shutil.disk_usage(folder).free,
        "gpus": _gpus(),
        "lacks": [name for name in NEEDED if importlib.util.find_spec(name) is None],
    }


def _gpus() -> list[dict[str, Any]]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60).stdout
    rows = [line.rsplit(",", 1) for line in listed.splitlines() if "," in line]
    return [{"name": name.strip(), "memory": int(mib) << 20} for name, mib in rows if mib.strip().isdigit()]
