"""What a notebook left that a person started: fetched, opened, and kept as a segment that has ended."""

from __future__ import annotations

import shutil

from elias.adapters.backends.kaggle.client import KaggleClient
from elias.adapters.backends.kaggle.ledger import Entry, Ledger
from elias.adapters.backends.kaggle.outcome import status_by_hand
from elias.adapters.backends.parcels import open_outbox
from elias.errors import BackendError, InputError, NotFound, VerificationError
from elias.ports.backend import BackendContext

SCHEME = "kaggle://"


class Adopter:
    def __init__(self, client: KaggleClient, ledger: Ledger, context: BackendContext) -> None:
        self._client, self._ledger, self._context = client, ledger, context

    def adopt(self, address: str) -> str:
        """The handle to fetch it by. A notebook of this node's own that Kaggle has no more is the segment it was.

        Raises InputError, NotFound, BackendError while it runs, or a VerificationError.
        """
        owner, _, slug = address.removeprefix(SCHEME).strip("/").partition("/")
        if not address.startswith(SCHEME) or not owner or not slug or "/" in slug:
            raise InputError(f"{address!r} names no notebook", fix="write it like kaggle://owner/slug")
        try:
            session = self._client.session(f"{owner}/{slug}")
        except NotFound as error:
            return self._own(owner, slug, error)
        if session.status == "NEW_SCRIPT":
            raise InputError(f"{address} was saved and never run", fix="run it on kaggle.com, then type this again")
        if not session.has_ended:
            raise BackendError(f"{address} is {session.status}", fix="wait for its end, then type this again")
        return self._bring(owner, slug)

    def _own(self, owner: str, slug: str, missing: NotFound) -> str:
        """The segment that was pushed under this slug, once its notebook was removed from Kaggle."""
        if owner == self._client.owner:
            for entry in self._ledger.entries():
                if entry.kernel == slug and entry.ended:
                    return entry.key
        raise NotFound(
            f"Kaggle shows no notebook {SCHEME}{owner}/{slug} to {self._client.owner}",
            fix="copy the address from kaggle.com/code/…; it must be of your own account",
        ) from missing

    def _bring(self, owner: str, slug: str) -> str:
        kernel, handle = f"{owner}/{slug}", f"adopted-{owner}-{slug}"
        folder = self._ledger.folder(handle)
        shutil.rmtree(folder, ignore_errors=True)
        self._client.output(kernel, folder / "outbox")
        try:
            open_outbox(folder / "outbox", folder / "out", self._context.node_key)
        except VerificationError as error:
            fix = "type this again; if it stays so, and it is this node's own, begin the notebook anew"
            raise type(error)(error.what, fix=fix, kept="the notebook's output, on Kaggle") from error
        (folder / "out").mkdir(exist_ok=True)
        if (found := folder / "outbox" / f"{slug}.log").exists():
            found.replace(folder / "log.json")
        shutil.rmtree(folder / "outbox")
        ended = status_by_hand(folder / "out").to_record(self._context.clock.now())
        entry = Entry(key=handle, dataset="", kernel=kernel, seconds=0, gpus=0, parcel="", forgotten=True, ended=ended)
        self._ledger.put(entry)
        return handle
