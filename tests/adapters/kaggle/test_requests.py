"""What the official client sends for a whole private segment, compared with a record: a new client version shows.

Record anew with ELIAS_RECORD=1, and read the difference.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.testing.kaggle_emulator import FaultKind

GOLDEN = Path(__file__).parent / "golden_requests.json"
POLLS = ("GetKernelSessionStatus", "GetDatasetStatus")


def shape(value: Any) -> Any:
    """What does not change from run to run: digests, tokens, times, sizes and texts become words."""
    if isinstance(value, dict):
        return {key: "…" if key in ("text", "token") else shape(found) for key, found in sorted(value.items())}
    if isinstance(value, list):
        return [shape(found) for found in value]
    if isinstance(value, str):
        return re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", value)
    return value if isinstance(value, bool) else type(value).__name__


def without_repeats(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each question of a poll once, where it was first asked; uploads in order of name."""
    kept: list[dict[str, Any]] = []
    for request in requests:
        entry = {"call": request["call"], "body": shape(request["body"])}
        if request["call"] not in POLLS or entry not in kept:
            kept.append(entry)
    blobs = iter(sorted((e for e in kept if e["call"] == "StartBlobUpload"), key=lambda e: str(e["body"]["name"])))
    return [next(blobs) if entry["call"] == "StartBlobUpload" else entry for entry in kept]


def test_the_requests_of_a_segment_are_those_on_record(place: Any) -> None:
    place.fault(FaultKind.SLOW_PROCESSING, "CreateDataset", seconds=0.5)
    place.submit(label=Label.PRIVATE, base=place.held(11))
    place.running()
    place.until(lambda status: place.emulated.disk.requests("logs"))
    place.let_go()
    assert place.ended().state is SegmentState.DONE
    place.backend.forget(place.key)
    sent = without_repeats(place.emulated.disk.requests())
    first_of = {json.dumps(entry, sort_keys=True): entry for entry in sent}
    found = sorted(first_of.values(), key=lambda entry: (entry["call"], json.dumps(entry, sort_keys=True)))
    if os.environ.get("ELIAS_RECORD"):
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))
