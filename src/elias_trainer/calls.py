"""The node as its worker reaches it: HTTPS from here to there, nothing the other way. Standard library only.

Every answer of a node carries the header `Elias-Worker`. What lacks it is not the node: a tunnel that has lost it, a
portal, an error page. That is the same as no answer, and is tried again.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MARK = "Elias-Worker"
ANSWER_WITHIN_S = 60.0
CHUNK_BYTES = 1 << 20
"""As much as a proxy takes in one request that nobody has configured (nginx: client_max_body_size)."""
BROKEN = 422
"""What arrived is whole and not what its digest says."""
CONFLICT = 409

Fields = dict[str, Any]


class Unreachable(Exception):
    """The node did not answer; worth another try."""


class Gone(Exception):
    """The node has given this segment up, or it never was this worker's."""


class Dismissed(Exception):
    """The node knows this worker no more; the text is what it says."""


class NotTaken(Exception):
    """The node refuses this; the text says why and what helps. Another try would end the same."""


class Broken(Exception):
    """A file is not what its digest says."""


class Node:
    """One connection, made again whenever it breaks. Not for several threads."""

    def __init__(self, url: str, *, credential: str | None = None, is_insecure_meant: bool = False) -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise NotTaken(f"{url!r} is no address of a node; it begins with https://")
        self.is_private = address.scheme == "https" or is_loopback(address.hostname)
        if not self.is_private and not is_insecure_meant:
            raise NotTaken(
                f"{url} would send the corpus and this worker's credential readable over the network; "
                "give an https:// address, or say --insecure where the network is yours (private data is then not sent)"
            )
        self.url = url
        self.credential = credential
        self._address = address
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, path: str, fields: Fields, within_s: float = ANSWER_WITHIN_S) -> Fields | None:
        """The answer's fields; None where it has none. Raises Unreachable, Gone, Dismissed, NotTaken."""
        status, data, _ = self.call("POST", path, json.dumps(fields).encode(), within_s=within_s)
        return None if status == 204 else dict(json.loads(data))

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Fields | None = None,
        within_s: float = 60.0,
    ) -> tuple[int, bytes, Fields]:
        """Status, body and headers of what is no refusal, and of 409 and 422."""
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        if self.credential:
            sent["Authorization"] = f"Bearer {self.credential}"
        was_kept = self._connection is not None
        try:
            answer, data = self._once(method, path, body, sent, within_s)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise NotTaken(f"{self.url} shows a certificate that this machine does not trust: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if was_kept:  # the other side may have closed it while nobody spoke; each call is safe to repeat
                return self.call(method, path, body, headers=headers, within_s=within_s)
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}") from error
        found = dict(answer.getheaders())
        if MARK.lower() not in {name.lower() for name in found} or answer.status >= 500 or answer.status == 429:
            raise Unreachable(f"{self.url} answers {answer.status}: {_words(data)}")
        if answer.status in (CONFLICT, BROKEN) or answer.status < 400:
            return answer.status, data, {name.lower(): value for name, value in found.items()}
        kinds = {401: Dismissed, 404: Gone, 410: Gone}
        raise kinds.get(answer.status, NotTaken)(_words(data))

    def _once(
        self, method: str, path: str, body: bytes | None, headers: Fields, within_s: float
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._connected(within_s)
        connection.request(method, self._address.path.rstrip("/") + path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.will_close:
            self.close()
        return answer, data

    def _connected(self, within_s: float) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = str(self._address.hostname), self._address.port
            if self._address.scheme == "https":
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(host, port, timeout=within_s, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=within_s)
        self._connection.timeout = within_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(within_s)
        return self._connection

    def download(self, path: str, target: Path, digest: str, size: int, beat: Callable[[], None]) -> None:
        """Whole, or as far as it came: another call goes on from there. Raises Broken and starts anew."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with part.open("ab") as stream:
            while (have := stream.tell()) < size:
                beat()
                wanted = {"Range": f"bytes={have}-{min(have + CHUNK_BYTES, size) - 1}"}
                status, data, _ = self.call("GET", path, headers=wanted)
                if status != 206 and have:
                    raise Unreachable(f"{self.url} sends no parts of a file")  # a proxy that knows better
                stream.write(data)
        if size_of(part) != size or digest_of(part) != digest:
            part.unlink()
            raise Broken(f"{target.name} arrived changed")
        part.replace(target)

    def upload(self, path: str, source: Path, beat: Callable[[], None]) -> None:
        """Goes on from what the node has. Raises Broken where that is not what `path` says at the end."""
        size = size_of(source)
        _, data, _ = self.call("GET", path, headers={"Elias-Size": str(size)})
        have = int(json.loads(data)["have"])
        with source.open("rb") as stream:
            while have < size or size == 0:
                beat()
                stream.seek(have)
                place = {"Elias-From": str(have), "Elias-Size": str(size)}
                status, data, _ = self.call("PUT", path, stream.read(CHUNK_BYTES), headers=place)
                if status == BROKEN:
                    raise Broken(f"{source.name} is not what its list says")
                have = int(json.loads(data)["have"])  # of a conflict too: another try of this chunk had arrived
                if size == 0:
                    return


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def size_of(path: Path) -> int:
    return path.stat().st_size


def digest_of(path: Path) -> str:
    """Hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _words(data: bytes) -> str:
    """What an answer that is no success says."""
    try:
        said = json.loads(data)
        return f"{said['what']} ({said['fix']})"
    except (ValueError, KeyError, TypeError):
        return data[:200].decode("utf-8", "replace").strip() or "nothing"
