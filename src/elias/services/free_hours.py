"""Hours of a weekly quota that a run with money leaves to those without: as many as will probably be wanted.

Runs without a budget came at some rate in the last weeks, and each wanted so many hours. Until the quota refreshes no
more than `n` of them will come, with probability `SURE` (arrivals taken to be Poisson); what `n` of the mean size take
is kept: the protection level of revenue management (Littlewood's rule), with money and deadlines in place of two
fares. Towards the refresh it falls to nothing, so that no hour is lost by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from elias.domain.offer import Offer
from elias.domain.run import HYBRID, Run
from elias.domain.statistics import poisson_quantile
from elias.errors import NotFound
from elias.ports.stores import CorpusStore
from elias.services.foresee import Foresight
from elias.services.planner.lanes import label_forbids
from elias.services.planner.outlook import Outlook, Sight
from elias.services.spend import Purse

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
    purse: Purse
    wants: dict[tuple[str, str], timedelta | None] = field(default_factory=dict)
    """Run and backend -> how long all of it takes there; None where it has money, or will not go there."""

    def less(self, outlook: Outlook) -> Outlook:
        """Without what is kept for others than its run; the same outlook where nothing is."""
        if all(sight.offer.refreshes_at is None for sight in outlook.sights):
            return outlook
        runs = self.foresight.runs.list()
        since = min((run.created_at for run in runs), default=outlook.now)
        time = max(min(outlook.now - since, LATELY), AT_LEAST)
        others = [run for run in runs if outlook.now - run.created_at < LATELY and run.id != outlook.run.id]
        found = [self._less(sight, others, time, outlook.now) for sight in outlook.sights]
        is_same = all(a is b for a, b in zip(found, outlook.sights, strict=True))
        return outlook if is_same else replace(outlook, sights=found)

    def _less(self, sight: Sight, others: Sequence[Run], time: timedelta, now: datetime) -> Sight:
        offer, refreshes = sight.offer, sight.offer.refreshes_at
        if offer.left is None or refreshes is None or offer.is_paid:
            return sight
        spans = [span for run in others if (span := self._wants(run, offer)) is not None]
        if not spans:
            return sight
        mean, rate = sum(spans, NOTHING) / len(spans), len(spans) / time.total_seconds()

        def kept(span: timedelta) -> timedelta:
            return mean * poisson_quantile(rate * max(NOTHING, span).total_seconds(), SURE)

        left = max(NOTHING, offer.left - kept(refreshes - now))
        refill = None if sight.refill is None else max(NOTHING, sight.refill - kept(timedelta(weeks=1)))
        left = left if left >= LEAST else NOTHING
        return replace(sight, offer=replace(offer, left=left, kept=offer.left - left), refill=refill)

    def _wants(self, run: Run, offer: Offer) -> timedelta | None:
        """Worked out once: a run's budget may change, and seldom does."""
        key = run.id, offer.backend
        if key not in self.wants:
            goes_there = run.strategy in (HYBRID, offer.backend) and not label_forbids(run.label, offer)
            is_poor = goes_there and run.bounds.budget is None and self.purse.left(run) is None
            self.wants[key] = self._span(run, offer) if is_poor else None
        return self.wants[key]

    def _span(self, run: Run, offer: Offer) -> timedelta | None:
        try:
            corpus = self.corpora.get(run.corpus)
        except NotFound:  # it is gone, and the run with it
            return None
        [found] = self.foresight.whole(run, corpus, [offer])
        return found.likely_span
