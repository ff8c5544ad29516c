"""The training loop, from the first step to the last: read it from top to bottom."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from elias_trainer import adapter, checkpoint
from elias_trainer.batches import collate
from elias_trainer.contract import AtDeadline, EventKind, FailureKind
from elias_trainer.events import Events
from elias_trainer.failures import Refusal
from elias_trainer.ledger import Ledger
from elias_trainer.loading import Work
from elias_trainer.objectives import batch_loss
from elias_trainer.schedule import dropout_seed
from elias_trainer.stopping import Abandoned, Stop

_REASONS = ("signal", "deadline", "lease")


def train(work: Work, out: Path, stop: Stop, events: Events, ledger: Ledger) -> str:
    """Train until the last step or until told to stop, and leave a checkpoint if there is more to do; why it ended.

    Every process of the group takes the same turns here, or they would wait for one another for ever.
    """
    keeper = _Keeper(work, out, stop, events, ledger)
    pace = _Pace(work, events)
    state, limits = ledger.state, work.job.limits
    _check_often(work.model, stop)
    while state.step < work.plan.step_total:
        if limits.stop_at_step is not None and state.step >= limits.stop_at_step:
            return keeper.leave("stop_at_step")
        with ledger.timed("train"):
            done = _attempt(work, state.step, stop)
        if isinstance(done, str):
            return keeper.leave(done)
        state.step += 1
        state.tokens += done.tokens
        state.last_loss = done.loss
        state.first_loss = done.loss if state.first_loss is None else state.first_loss
        pace.report(state.step, done)
        keeper.save_if_due()
    return "steps" if work.job.recipe.max_steps is not None else "epochs"


def export(work: Work, out: Path) -> None:
    adapter.export(work.model, work.base, work.job, out)


@dataclass(frozen=True, slots=True)
class _Step:
    loss: float
    learning_rate: float
    tokens: int


def _attempt(work: Work, step: int, stop: Stop) -> _Step | str:
    """One optimizer step, or the reason why it was left undone, with nothing changed."""
    try:
        with stop.abandonable():
            sums = _forward_and_backward(work, step)
    except Abandoned:
        stop.settle()
        sums = torch.zeros(3, dtype=torch.float64, device=work.device.torch_device)
    reason, loss_sum, weight, tokens = _agree(work, sums, stop)
    if reason is not None:
        work.optimizer.zero_grad(set_to_none=True)
        return reason
    loss = _finite(loss_sum / weight, step)
    return _Step(loss, _update(work, step, weight), tokens)


def _forward_and_backward(work: Work, step: int) -> Tensor:
    """Gradients of this process's share of the step; the sums of losses, of weights and of tokens, in float64."""
    device = work.device.torch_device
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for number, rows in enumerate(work.plan.micro_batches(step)):
        if number % work.ranks.world_size != work.ranks.rank:
            continue
        batch = collate(rows, work.base.tokenizer.pad_token_id, device)
        torch.manual_seed(dropout_seed(work.job.recipe.seed, step, number))
        with work.device.autocast():
            loss, weight = batch_loss(work.model, batch, work.job.recipe)
        (work.scaler.scale(loss) if work.scaler else loss).backward()
        sums += torch.stack([loss.detach().double(), weight.double(), sums.new_tensor(batch.tokens)])
    return sums


def _agree(work: Work, sums: Tensor, stop: Stop) -> tuple[str | None, float, float, int]:
    """The whole group's sums, or why all of it leaves this step undone: one that had to leave is enough."""
    left = [float(stop.reason == reason and sums[1].item() == 0) for reason in _REASONS]
    together = work.ranks.sum(torch.cat([sums.new_tensor(left), sums])).tolist()
    reason = next((reason for reason, count in zip(_REASONS, together, strict=False) if count), None)
    loss_sum, weight, tokens = together[len(_REASONS) :]
    return reason, loss_sum, weight, int(tokens)


def _update(work: Work, step: int, weight: float) -> float:
    """Divide the summed gradients by the step's whole weight, clip, and let the optimizer act; the learning rate."""
    recipe, parameters = work.job.recipe, list(work.parameters.values())
    work.ranks.sum_gradients(parameters)
    if work.scaler:
        work.scaler.unscale_(work.optimizer)
    torch._foreach_div_([p.grad for p in parameters if p.grad is not None], weight)
    norm = nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm if recipe.max_grad_norm > 0 else math.inf)
    rate = work.plan.learning_rate(step)
    for group in work.optimizer.param_groups:
        group["lr"] = rate
    if work.scaler:
        # float16 overflows now and then: the scaler leaves that step out and lowers its scale
        work.scaler.step(work.optimizer)
        work.scaler.update()
    else:
        _finite(norm.item(), step)
        work.optimizer.step()
    work.optimizer.zero_grad(set_to_none=True)
    return rate


def _finite(value: float, step: int) -> float:
    if math.isfinite(value):
        return value
    raise Refusal(
        FailureKind.USER,
        f"training diverged: at step {step + 1} the loss or its gradient is {value}",
        fix="lower learning_rate (a tenth is a good try) or raise warmup_share; the checkpoints before it are kept",
    )


def _check_often(model: nn.Module, stop: Stop) -> None:
    """Between any two layers, forward and backward, see whether to stop: a step of many seconds is left in one."""

    def after_layer(layer: nn.Module, inputs: object, output: object) -> None:
        stop.check()
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, Tensor) and hidden.requires_grad:
            hidden.register_hook(lambda gradient: stop.check())

    for stack in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for layer in stack:
            layer.register_forward_hook(after_layer)


class _Keeper:
    """Writes checkpoints: on a timer, and when the segment is left before its end."""

    _SLOWEST_DISK = 50e6
    _MARGIN_S = 0.5

    def __init__(self, work: Work, out: Path, stop: Stop, events: Events, ledger: Ledger) -> None:
        self._work, self._out, self._stop, self._events, self._ledger = work, out, stop, events, ledger
        self._saved_at = time.monotonic()
        size = sum(parameter.nbytes for parameter in work.parameters.values())
        # A guess, three tensors for each weight, until one has been measured.
        self._longest_s = 3 * size / self._SLOWEST_DISK
        self._keep_time_back()

    def save_if_due(self) -> None:
        is_due = time.monotonic() - self._saved_at >= self._work.job.limits.checkpoint_every_s
        if is_due and self._ledger.state.step < self._work.plan.step_total:
            self.save()

    def leave(self, reason: str) -> str:
        """With a checkpoint of where it stands, unless that is there already."""
        last = self._ledger.checkpoint
        if last is None or last.step != self._ledger.state.step:
            self.save()
        return reason

    def save(self) -> None:
        if not self._work.ranks.is_first:
            return
        work, state = self._work, self._ledger.state
        started = time.monotonic()
        with self._ledger.timed("checkpoint"):
            state.scaler = work.scaler.state_dict() if work.scaler else None
            saved = checkpoint.write(self._out, work.job, state=state, base=work.base.digest, tensors=work.tensors())
        self._ledger.checkpoint = saved
        self._saved_at = time.monotonic()
        seconds = self._saved_at - started
        self._events.emit(
            EventKind.CHECKPOINT, step=saved.step, path=saved.path, digest=saved.digest, seconds=round(seconds, 3)
        )
        self._longest_s = max(1.5 * seconds, self._longest_s / 2)
        self._keep_time_back()

    def _keep_time_back(self) -> None:
        """From the deadline: for the last checkpoint, and for the adapter where that is what ends the segment."""
        limits = self._work.job.limits
        if limits.seconds is not None:
            writes = 2 if limits.at_deadline is AtDeadline.FINISH else 1
            self._stop.limit(limits.seconds - writes * self._longest_s - self._MARGIN_S)


@dataclass
class _Pace:
    """Speed over the last steps, as events."""

    work: Work
    events: Events
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=20))

    def __post_init__(self) -> None:
        self.recent.append((time.monotonic(), 0))

    def report(self, step: int, done: _Step) -> None:
        self.recent.append((time.monotonic(), done.tokens))
        spent = max(self.recent[-1][0] - self.recent[0][0], 1e-9)
        steps, seen = len(self.recent) - 1, sum(count for _, count in list(self.recent)[1:])
        total = self.work.plan.step_total
        self.events.emit(
            EventKind.STEP,
            step=step,
            step_total=total,
            epoch=round(self.work.plan.epochs_done(step), 4),
            loss=done.loss,
            learning_rate=done.learning_rate,
            tokens=done.tokens,
            tokens_per_s=round(seen / spent, 1),
            memory_bytes=self.work.device.memory_bytes(),
            eta_s=round((total - step) * spent / steps, 1),
        )
