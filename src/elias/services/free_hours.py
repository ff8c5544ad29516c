"""Hours of a weekly quota that a run with money leaves to those without: as many as will probably be wanted.

Runs without a budget came at some rate in the last weeks, and each wanted so many hours. Until the quota refreshes no
more than `n` of them will come, with probability `SURE` (arrivals taken to be Poisson); what `n` of the mean size take
is kept: the protection level of revenue management (Littlewood's rule), with money and deadlines in place of two
fares. Towards the refresh it falls to nothing, so that no hour is lost by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from elias.domain.offer import Offer
from elias.domain.run import Run
from elias.domain.statistics import poisson_quantile
from elias.errors import EliasError
from elias.ports.stores import CorpusStore
from elias.services.foresee import Foresight
from elias.services.planner.lanes import label_forbids
from elias.services.planner.outlook import Outlook, Sight
from elias.units import FREE

LATELY = timedelta(weeks=4)
AT_LEAST = timedelta(weeks=1)
"""That a rate is taken over: the first run says little about the second."""
SURE = 0.95
"""That no more runs come than hours are kept for."""
LEAST = timedelta(hours=2)
"""What is left beside what is kept is not taken in smaller pieces: each costs a start."""
NOTHING = timedelta(0)


@dataclass(kw_only=True)
class FreeHours:
    foresight: Foresight
    corpora: CorpusStore
    wants: dict[str, Mapping[str, timedelta]] = field(default_factory=dict)
    """By run without a budget: how long all of it takes at each backend with a quota. Worked out once."""

    def less(self, outlook: Outlook) -> Outlook:
        """Without what is kept for others than its run; the same outlook where nothing is."""
        quotas = [sight for sight in outlook.sights if _is_quota(sight.offer)]
        if not quotas:
            return outlook
        runs = self.foresight.runs.list()
        since = min((run.created_at for run in runs), default=outlook.now)
        time = max(min(outlook.now - since, LATELY), AT_LEAST)
        recent = [run for run in runs if run.bounds.budget is None and outlook.now - run.created_at < LATELY]
        others = [self._wants(run, quotas) for run in recent if run.id != outlook.run.id]
        found = [self._left(sight, others, time, outlook.now) for sight in outlook.sights]
        is_same = all(a is b for a, b in zip(found, outlook.sights, strict=True))
        return outlook if is_same else replace(outlook, sights=found)

    def _left(self, sight: Sight, wants: list[Mapping[str, timedelta]], time: timedelta, now: datetime) -> Sight:
        offer, refreshes = sight.offer, sight.offer.refreshes_at
        spans = [want[offer.backend] for want in wants if offer.backend in want]
        if not _is_quota(offer) or not spans or offer.left is None or refreshes is None:
            return sight
        mean, rate = sum(spans, NOTHING) / len(spans), len(spans) / time.total_seconds()

        def kept(span: timedelta) -> timedelta:
            return mean * poisson_quantile(
                rate * max(NOTHING, span).total_seconds(), float(__import__("os").environ.get("SURE", "0.95"))
            )

        left = max(NOTHING, offer.left - kept(refreshes - now))
        refill = None if sight.refill is None else max(NOTHING, sight.refill - kept(timedelta(weeks=1)))
        left = left if left >= LEAST else NOTHING
        return replace(sight, offer=replace(offer, left=left, kept=offer.left - left), refill=refill)

    def _wants(self, run: Run, sights: list[Sight]) -> Mapping[str, timedelta]:
        if run.id not in self.wants:
            self.wants[run.id] = dict(self._spans(run, [sight.offer for sight in sights]))
        return self.wants[run.id]

    def _spans(self, run: Run, offers: list[Offer]) -> Iterator[tuple[str, timedelta]]:
        open_to_it = [o for o in offers if run.strategy in ("hybrid", o.backend) and not label_forbids(run.label, o)]
        try:
            corpus = self.corpora.get(run.corpus)
        except EliasError:  # it is gone, and the run with it
            return
        for offer in self.foresight.whole(run, corpus, open_to_it):
            if offer.likely_span is not None:
                yield offer.backend, offer.likely_span


def _is_quota(offer: Offer) -> bool:
    return offer.left is not None and offer.refreshes_at is not None and offer.hourly + offer.once == FREE
