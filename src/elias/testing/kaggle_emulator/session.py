"""One session of a pushed kernel: a private `/kaggle` tree, the code run for real, its output logged, its end recorded.

Run as `python -m elias.testing.kaggle_emulator.session VERSION_FOLDER`, one process a session.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from elias.testing.emulated import read, write
from elias.testing.kaggle_emulator.disk import Disk

# A new root, in which everything is as outside but /kaggle; works for root and, in a user namespace, for anyone.
ENTER = """
root=$1; tree=$2; shift 2
mount -t tmpfs none "$root"
for entry in /*; do
  if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
  elif [ -d "$entry" ] && [ "$entry" != /kaggle ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"; fi
done
mkdir "$root/kaggle"; mount --rbind "$tree" "$root/kaggle"
exec chroot "$root" "$@"
"""
RUN_NOTEBOOK = """
import nbformat, sys
from nbclient import NotebookClient
class Loud(NotebookClient):
    def process_message(self, message, cell, index):
        content = message["content"]
        if message["msg_type"] == "stream":
            stream = sys.stdout if content["name"] == "stdout" else sys.stderr
            stream.write(content["text"]); stream.flush()
        return super().process_message(message, cell, index)
notebook = nbformat.read("/kaggle/src/notebook.ipynb", 4)
try:
    Loud(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": "/kaggle/working"}}).execute()
finally:
    nbformat.write(notebook, "/kaggle/working/__notebook__.ipynb")
"""
SECRETS_MODULE = """
import os
class UserSecretsClient:
    def get_secret(self, label):
        try:
            return os.environ["EMULATED_SECRET_" + label]
        except KeyError:
            raise KeyError(f"No user secrets exist for label {label}") from None
"""
ENDINGS = {
    "session_timeout": "CANCEL_ACKNOWLEDGED",
    "cancelled_from_web": "CANCEL_ACKNOWLEDGED",
    "session_error": "ERROR",
    "vanished": "ERROR",
}


def main(version: Path) -> None:
    plan, request, session = (read(version / name) or {} for name in ("plan.json", "request.json", "session.json"))
    time.sleep(plan["queue_s"])
    session |= {"status": "RUNNING", "pid": os.getpid()}
    write(version / "session.json", session)
    with tempfile.TemporaryDirectory(prefix="emulated-kaggle-") as root:
        status, failure = _run(version, plan, request, Path(root))
    if status == "ERROR" and plan["fault"] == "vanished":
        session["vanished"] = True
    write(version / "session.json", session | {"status": status, "failure": failure, "ended_at": time.time()})


def _run(version: Path, plan: dict[str, Any], request: dict[str, Any], root: Path) -> tuple[str, str | None]:
    """The status and failure message that the session ends with."""
    start = time.monotonic()
    process = subprocess.Popen(
        [
            "unshare",
            "-Urm",
            "sh",
            "-ec",
            ENTER,
            "enter",
            str(root),
            str(version / "kaggle"),
            *_command(version, plan, request),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=_environment(version),
    )
    pumps = [
        threading.Thread(target=_pump, args=(stream, name, version / "log.jsonl", start))
        for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr"))
    ]
    for pump in pumps:
        pump.start()
    ending = _watch(process, version, plan, start)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pump in pumps:
        pump.join()
    if ending is not None:
        return ending
    if process.returncode == 0:
        return "COMPLETE", None
    return "ERROR", f"Your notebook tried to exit with code {process.returncode}"


def _watch(
    process: subprocess.Popen[bytes], version: Path, plan: dict[str, Any], start: float
) -> tuple[str, str | None] | None:
    """How the session is ended from outside; None when the code ends by itself."""
    since = None if plan["fault_once"] else start
    while process.poll() is None:
        passed_s = time.monotonic() - start
        if since is None and any((version / "kaggle" / "working").glob(plan["fault_once"])):
            since = time.monotonic()
        if plan["fault"] and since is not None and time.monotonic() - since >= plan["fault_s"]:
            return ENDINGS[plan["fault"]], f"emulated: {plan['fault']}"
        if passed_s >= plan["limit_s"]:
            return "CANCEL_ACKNOWLEDGED", "the session ran out of time"
        if stop := read(version / "stop.json"):
            return stop["status"], "cancelled"
        time.sleep(0.02)
    return None


def _command(version: Path, plan: dict[str, Any], request: dict[str, Any]) -> list[str]:
    tree = version / "kaggle"
    (tree / "src").mkdir(exist_ok=True)
    (tree / "bin").mkdir(exist_ok=True)
    lines = "\n".join(f"echo 'GPU {n}: {name} (UUID: GPU-emulated-{n})'" for n, name in enumerate(plan["gpus"]))
    shim = tree / "bin" / "nvidia-smi"
    shim.write_text(f"#!/bin/sh\n{lines or 'echo No devices were found; exit 6'}\n")
    shim.chmod(0o755)
    if request.get("kernelType") == "notebook":
        (tree / "src" / "notebook.ipynb").write_text(request["text"], encoding="utf-8")
        program = ["-c", RUN_NOTEBOOK]
    else:
        (tree / "src" / "script.py").write_text(request["text"], encoding="utf-8")
        program = ["/kaggle/src/script.py"]
    return ["sh", "-c", 'cd /kaggle/working && exec "$@"', "run", sys.executable, "-u", *program]


def _environment(version: Path) -> dict[str, str]:
    """Secrets come in the environment: on no disk that a test searches for what must not lie there."""
    modules = version / "kaggle" / "lib"
    modules.mkdir(exist_ok=True)
    (modules / "kaggle_secrets.py").write_text(SECRETS_MODULE)
    secrets = Disk(version.parents[4]).secrets()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAGGLE_", "ELIAS_"))}
    return kept | {
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_URL_BASE": "https://www.kaggle.com",
        "PATH": f"/kaggle/bin:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": "/kaggle/lib",
        "PIP_TARGET": "/kaggle/lib",  # what a kernel installs stays in its tree, out of the environment it runs in
        **{f"EMULATED_SECRET_{name}": value for name, value in secrets.items()},
    }


def _pump(stream: IO[bytes] | None, name: str, log: Path, start: float) -> None:
    for line in stream or ():
        entry = {
            "stream_name": name,
            "time": round(time.monotonic() - start, 6),
            "data": line.decode("utf-8", errors="replace"),
        }
        with log.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
