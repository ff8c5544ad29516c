"""The text of a Python file as the interpreter itself would read it."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path


def read_python(path: Path, most_bytes: int) -> str:
    """By its encoding cookie or byte order mark, with every line ended by `\\n`.

    Raises OSError; SyntaxError for an unknown encoding; ValueError for another encoding than it says, or its size.
    """
    with path.open("rb") as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"larger than {most_bytes:,} bytes, which is more than people write")
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"not {encoding}: byte 0x{data[error.start]:02x} in line {line}") from error
    except (UnicodeError, LookupError) as error:  # a cookie may name a codec that does not make text
        raise ValueError(f"cannot be read as {encoding}: {error}") from error
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    text.encode("utf-8")  # what cannot be written again must not get in; raises ValueError
    return text.replace("\r\n", "\n").replace("\r", "\n")
