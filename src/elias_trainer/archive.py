"""The trainer as one file that runs anywhere: `python -I trainer.pyz`. Standard library only.

The same sources give the same bytes everywhere: sorted names, one fixed time, no compression (zlib's output
differs between its builds).
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

from elias_trainer.contract import Digest, digest_bytes, write_whole

_ENTRY = b"import sys\n\nfrom elias_trainer.__main__ import main\n\nsys.exit(main())\n"
_TIME = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644 << 16
_UNIX = 3


def build(into: Path) -> Digest:
    """Write the archive of the running trainer to `into`, whole; its digest."""
    data = archive_bytes()
    write_whole(into, data)
    return digest_bytes(data)


def own_digest() -> Digest:
    """Of the archive that is running, or of the one that the running sources would make."""
    return digest_bytes(archive_bytes())


def archive_bytes() -> bytes:
    running = running_archive()
    return running.read_bytes() if running else _pack(Path(__file__).parent)


def running_archive() -> Path | None:
    """The .pyz that this program was started from; None when it runs from a folder."""
    found = getattr(sys.modules[__name__].__loader__, "archive", None)
    return Path(found) if found else None


def _pack(package: Path) -> bytes:
    files = {f"{package.name}/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _ENTRY)
        for name in sorted(files):
            _add(archive, name, files[name].read_bytes())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.create_system = _UNIX
    entry.external_attr = _PLAIN_FILE
    archive.writestr(entry, data)
