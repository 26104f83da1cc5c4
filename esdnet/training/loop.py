"""The training loop: a model and a source of image pairs in; checkpoints, a log and validation scores out.

Files in the run's folder: last.pt (weights, averaged weights, optimizer, step: what --resume needs), ema.pt (averaged
weights), best.pt (those of the best validation PSNR), log.csv, tensorboard/. The batch of a step is a pure function of
(seed, rank, step), so that a resumed run sees exactly the data that an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from esdnet.command.errors import UserError
from esdnet.networks.architectures import name_of
from esdnet.networks.checkpoint import read_checkpoint, save_checkpoint
from esdnet.networks.esdnet.layers import TdBatchNorm
from esdnet.training.config import CHANGEABLE, DataConfig, TrainingConfig, check_unchanged
from esdnet.training.data import PairSource
from esdnet.training.distillation import DistillationLoss
from esdnet.training.losses import FiringLoss, GateLoss, RestorationLoss
from esdnet.training.optimizers import learnt_thresholds, open_optimizers
from esdnet.training.run_log import RunLog, progress_bar
from esdnet.training.validation import Validation, validate

if TYPE_CHECKING:
    from esdnet.networks.architectures import Network
    from esdnet.networks.esdnet.model import ESDNet

SMALLEST_THRESHOLD = 0.01


@dataclass(frozen=True)
class Worker:
    """This process among those that train together, and the device that it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up from lr/warmup, then a cosine that ends at final_lr on the last step."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - 1 - config.warmup)
    return config.final_lr + 0.5 * (config.lr - config.final_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


def draw_batch(source: PairSource, config: TrainingConfig, rank: int, step: int) -> tuple[Tensor, Tensor]:
    """The (rainy, clean) batch of a step, (N, 3, crop, crop): each image has a generator of its own."""
    pairs = [
        source.sample(np.random.default_rng((config.seed, rank, step, index)), config.crop)
        for index in range(config.batch)
    ]
    rainy, clean = (torch.from_numpy(np.stack(images)) for images in zip(*pairs, strict=True))
    return rainy, clean


def batches(source: PairSource, config: TrainingConfig, rank: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(rainy, clean) of every step from `start` on; the next is drawn in a thread while this one is trained on."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(draw_batch, source, config, rank, start)
        for step in range(start, config.steps):
            batch = pending.result()
            if step + 1 < config.steps:
                pending = pool.submit(draw_batch, source, config, rank, step + 1)
            yield batch


def read_run(last: Path) -> dict[str, Any]:
    """What a run's last.pt holds; extra["training"] has every setting: one that it did not know yet was the default.

    UserError if it is no run's, or of a version whose runs cannot be resumed.
    """
    content = read_checkpoint(last)
    extra = content.get("extra", {})
    if "optimizer" in extra:
        raise UserError(f"{last}: written by an earlier version, cannot be resumed; start from it with --init")
    if not {"step", "ema", "optimizers", "best_psnr", "training"} <= extra.keys():
        raise UserError(f"{last}: not a run's last.pt, it has no optimizer state; use --init for weights alone")
    extra["training"] = asdict(TrainingConfig()) | extra["training"]
    return content


def _check_network(model: Network, config: TrainingConfig) -> None:
    """UserError where the network cannot be trained in this way."""
    name = name_of(model.config)
    if config.crop % model.size_multiple:
        raise UserError(
            f"training: crop must be a multiple of {model.size_multiple} for a {name} network, found {config.crop}"
        )
    if config.freeze_norm and not _norms(model):
        raise UserError(f"training: freeze_norm needs batch norms, the {name} network has none")


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, TdBatchNorm)]


def average_of(model: Network, decay: float) -> AveragedModel:
    """The exponential moving average of weights and batch statistics, a network of its own in eval mode: `module`.

    `n_averaged` is the number of steps averaged and one more. Early on the average is short, so that it forgets the
    random start.
    """

    def blend(average: list[Tensor], latest: list[Tensor], steps: Tensor) -> None:
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, latest, 1 - min(decay, int(steps) / (int(steps) + 9)))
        else:
            for old, new in zip(average, latest, strict=True):
                old.copy_(new)

    options: dict[str, Any] = {"multi_avg_fn": blend, "use_buffers": True}  # torch's stubs know the second only
    average = AveragedModel(model, **options)
    average.n_averaged.fill_(1)  # 0 would take the first weights as they are
    average.eval().requires_grad_(False)
    return average


class Trainer:
    """One run in one folder. `run` trains from the step reached so far to the end, or until a signal asks to stop."""

    def __init__(
        self,
        model: Network,
        source: PairSource,
        config: TrainingConfig,
        out: Path,
        worker: Worker,
        teacher: ESDNet | None = None,
        data: DataConfig | None = None,
    ) -> None:
        self.data = data  # where `source` came from, for the run's own record
        self.model = model.to(worker.device)
        self.source, self.config, self.out, self.worker = source, config, out, worker
        self.network: nn.Module = self.model
        if worker.size > 1:
            self.network = nn.parallel.DistributedDataParallel(self.model)
        _check_network(self.model, config)
        if config.freeze_norm:
            for module in _norms(self.model):
                module.eval()
        self.optimizers = open_optimizers(self.model, config)
        self.loss: nn.Module = RestorationLoss(config.l1_weight, config.ssim_on_luma, config.log_weight)
        if config.firing_price:
            self.loss = FiringLoss(self.loss, self.model, config.firing_price)
        if getattr(self.model.config, "gate", "none") == "learnt":
            self.loss = GateLoss(self.loss, self.model)
        if bool(config.distillation) != (teacher is not None):
            found = "no teacher" if teacher is None else "a teacher"
            raise UserError(
                f"training: a teacher and distillation go together, found {found} and {config.distillation}"
            )
        if teacher is not None:
            self.loss = DistillationLoss(self.loss, self.model, teacher, config.distillation)
        self.average = average_of(self.model, config.ema)
        self.step = 0
        self.saved: int | None = None  # the step of last.pt
        self.best_psnr = -math.inf
        self.pairs = source.validation_pairs(config.seed)[: config.validation_images] if worker.rank == 0 else []

    @property
    def last(self) -> Path:
        """The checkpoint that --resume reads."""
        return self.out / "last.pt"

    def resume(self, may_grow: bool = False) -> None:
        """Take weights, averages, optimizer state and step from last.pt. UserError if the settings were others.

        `may_grow` allows more steps than the run began with: from here on the learning rate is that of a run which
        began with so many.
        """
        content = read_run(self.last)
        extra = content["extra"]
        if may_grow and self.config.steps > extra["training"]["steps"]:
            check_unchanged(self.last, extra["training"], self.config, CHANGEABLE | {"steps"})
        else:
            check_unchanged(self.last, extra["training"], self.config)
        self.model.load_state_dict(content["state_dict"])
        self.average.module.load_state_dict(extra["ema"])
        for optimizer, state in zip(self.optimizers, extra["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step = self.saved = extra["step"]
        self.best_psnr = extra["best_psnr"]

    def save(self) -> None:
        """Write last.pt so that a crash leaves the previous one."""
        extra = {
            "step": self.step,
            "best_psnr": self.best_psnr,
            "ema": self.average.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "training": asdict(self.config),
            "data": asdict(self.data) if self.data else None,
        }
        save_checkpoint(self.last, self.model, extra)
        self.saved = self.step

    def train_step(self, rainy: Tensor, clean: Tensor) -> float:
        """One optimizer step; returns the loss. A loss or gradient that is not finite stops the run."""
        device = self.worker.device
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["lr_scale"] * learning_rate(self.step, self.config)
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            restored = self.network(rainy.to(device, non_blocking=True))
        loss = self.loss(restored, clean.to(device, non_blocking=True))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise UserError(self._not_finite(float(loss.detach()), float(norm)))
        for optimizer in self.optimizers:
            optimizer.step()
        for threshold in learnt_thresholds(self.model):
            threshold.data.clamp_(min=SMALLEST_THRESHOLD)
        self.average.n_averaged.fill_(self.step + 1)
        self.average.update_parameters(self.model)
        self.step += 1
        return float(loss.detach())

    def _not_finite(self, loss: float, norm: float) -> str:
        kept = "no checkpoint was written yet" if self.saved is None else f"the last good checkpoint is {self.last}"
        reached = "" if self.saved is None else f" of step {self.saved}"
        return f"training: loss {loss}, gradient norm {norm} at step {self.step}: {kept}{reached}; lower --lr"

    def run(self) -> bool:
        """Train to the end; log, save and validate on the way. True if the end was reached. Rank 0 alone writes."""
        writes = self.worker.rank == 0
        with ExitStack() as stack:
            log = stack.enter_context(closing(RunLog(self.out, self.step))) if writes else None
            stop = stack.enter_context(_stop_signal(self.worker.size == 1))
            bar = stack.enter_context(progress_bar(self.config.steps, self.step, writes))
            stack.callback(self._leave_group)
            losses: list[float] = []
            for rainy, clean in batches(self.source, self.config, self.worker.rank, self.step):
                losses.append(self.train_step(rainy, clean))
                bar.set_postfix_str(f"loss {np.mean(losses[-20:]):.4f}", refresh=False)
                bar.update()
                ends = self.step == self.config.steps or stop.is_set()
                validates = ends or self.step % self.config.validate_every == 0
                if log and (validates or self.step % self.config.save_every == 0):
                    validation = self._keep() if validates else None
                    self.save()
                    log.add(self.step, float(np.mean(losses)), learning_rate(self.step - 1, self.config), validation)
                    losses.clear()
                if ends:
                    break
        return self.step == self.config.steps

    def _leave_group(self) -> None:
        """Drop the wrapper that synchronises: it must go before the process group does, or gloo waits for ever."""
        self.network = self.model

    def _keep(self) -> Validation | None:
        """Score the averaged weights; write them to ema.pt, and to best.pt where they are the best so far."""
        extra = {"step": self.step, "training": asdict(self.config)}
        validation = validate(self.average.module, self.pairs, self.worker.device) if self.pairs else None
        save_checkpoint(self.out / "ema.pt", self.average.module, extra)
        if validation and validation.psnr > self.best_psnr:
            self.best_psnr = validation.psnr
            save_checkpoint(self.out / "best.pt", self.average.module, {**extra, "validation_psnr": validation.psnr})
        return validation


@contextmanager
def _stop_signal(enabled: bool) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a run ends between two steps with last.pt written."""
    stop = threading.Event()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
