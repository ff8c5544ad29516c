"""`elias up` waits for a node that has much to do."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from elias.cli.up import _wait


class BreaksOffOnce(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        BreaksOffOnce.asked += 1
        if self.asked == 1:
            return  # the connection ends before the answer, as it does for whoever has waited too long
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"in_service": {"model": "starter"}, "change": None, "notes": []}).encode())

    def log_message(self, *_: object) -> None:
        return


def test_a_node_that_breaks_off_on_its_way_up_is_asked_again(tmp_path: Path) -> None:
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), BreaksOffOnce) as server,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as node,
    ):
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        place = {"process": node.pid, "url": f"http://127.0.0.1:{server.server_port}"}
        (tmp_path / "node.json").write_text(json.dumps(place))
        status = _wait(tmp_path, node, tmp_path / "node.log", 0)
        server.shutdown()
        node.kill()
    assert status["in_service"] == {"model": "starter"} and BreaksOffOnce.asked == 2
