"""A worker led by hand, and a bad line to the node."""

import hashlib
import secrets
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from elias_trainer.machine import describe
from tests.adapters.files_under import files_under, read
from tests.adapters.worker.conftest import Place


class Hand:
    """Speaks as a worker does, one call at a time."""

    def __init__(self, place: Place, url: str | None = None, token: str | None = None, *, opens: bool = False) -> None:
        """`opens` the door first, where nobody did yet."""
        if opens:
            place.made[-1].listen()
        secret = secrets.token_urlsafe(32)
        self.worker = f"w-{hashlib.sha256(secret.encode()).hexdigest()[:10]}"
        self.proof = hashlib.sha256(secret.encode()).hexdigest()
        self.machine = describe(place.folder) | {"is_private": True, "recipient": None}
        self.node = place.line(url)
        self.join(token or place.token())
        self.node.credential = f"{self.worker}.{secret}"

    def join(self, token: str) -> None:
        fields = {"token": token, "worker": self.worker, "proof": self.proof, "machine": self.machine}
        self.node.ask("/join", fields)

    def work(self) -> dict[str, Any] | None:
        return self.node.ask("/work", {"machine": self.machine, "wait_s": 0})


class BadLine:
    """Passes bytes on to the node, and breaks each connection off after so many in one direction."""

    def __init__(self, port: int, breaks_after: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        """With `tls` it ends that, as a proxy before the node does."""
        self._port, self._breaks_after, self._tls = port, breaks_after, tls
        self.seen = bytearray()
        self.breaks = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self._tls is not None:
                    try:
                        here = self._tls.wrap_socket(here, server_side=True)
                    except OSError:  # whoever called does not trust it
                        here.close()
                        continue
                there = socket.create_connection(("127.0.0.1", self._port))
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self.seen += data
                passed += len(data)
                target.sendall(data)
                if self._breaks_after is not None and passed >= self._breaks_after:
                    self.breaks += 1
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def own_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """For 127.0.0.1, signed by nobody else: what a server shows, and the file by which it is trusted."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret, shown = folder / "tls.key", folder / "tls.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*form))
    shown.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, secret)
    return context, shown


def written_in(folder: Path) -> bytes:
    return b"".join(read(path) for path in files_under(folder))
