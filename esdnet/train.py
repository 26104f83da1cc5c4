"""`python -m esdnet.train`: trains an ESDNet on pairs made on the fly or read from a folder.

In: a preset (or a checkpoint), data, and a folder for the run. Out: checkpoints and a log; see esdnet.training.
Several processes train together under `torchrun`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from esdnet.config import spike_driven
from esdnet.device import DEVICES, choose_device
from esdnet.errors import UserError, report_user_errors
from esdnet.networks.architectures import PRESETS, build, preset
from esdnet.writing import check_writable

if TYPE_CHECKING:
    from torch import Tensor

    from esdnet.networks.architectures import Network
    from esdnet.training import TrainingConfig, Worker


def build_parser() -> argparse.ArgumentParser:
    """All flags; the defaults are those of TrainingConfig."""
    parser = argparse.ArgumentParser(prog="python -m esdnet.train", description="Train an ESDNet.")
    parser.add_argument("--preset", help=f"the architecture: {', '.join(PRESETS)} (default: that of --init)")
    parser.add_argument("--data", default="synthetic", help="'synthetic', or a folder of pairs (default: synthetic)")
    parser.add_argument("--photos", type=Path, help="clean photos for synthetic rain")
    parser.add_argument("--streaks", type=Path, help="streak layers for synthetic rain")
    parser.add_argument("--pasted", type=Path, help="folder of pairs whose rain layers are pasted")
    parser.add_argument("--dry-share", type=float, default=0.05, help="of synthetic crops: no rain (default: 0.05)")
    parser.add_argument("--light-share", type=float, default=0.5, help="of drawn rain: light rain (default: 0.5)")
    parser.add_argument("--held-out", type=int, default=16, help="photos kept for validation (default: 16)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--init",
        type=Path,
        help="checkpoint whose weights the run starts from; a released one may start its spike-driven preset",
    )
    parser.add_argument("--resume", action="store_true", help="continue from last.pt in --out")
    parser.add_argument("--steps", type=int, default=10_000, help="optimizer steps (default: 10000)")
    parser.add_argument("--batch", type=int, default=8, help="crops per step and process (default: 8)")
    parser.add_argument("--crop", type=int, default=64, help="side of a crop in pixels (default: 64)")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (default: 1e-3)")
    parser.add_argument("--warmup", type=int, default=100, help="warm-up steps (default: 100)")
    parser.add_argument("--clip", type=float, default=1.0, help="largest gradient norm (default: 1)")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights (default: 0.999)")
    parser.add_argument("--loss", choices=("ssim", "l1_ssim", "log_ssim"), default="l1_ssim", help="default: l1_ssim")
    parser.add_argument("--l1-weight", type=float, default=1.0, help="of l1_ssim's Charbonnier term (default: 1)")
    parser.add_argument("--log-weight", type=float, default=0.1, help="of log_ssim's logarithm (default: 0.1)")
    parser.add_argument("--ssim-on", choices=("rgb", "y"), default="rgb", help="planes SSIM is taken on (default: rgb)")
    parser.add_argument(
        "--firing-price", type=float, default=0.0, help="added to the loss per share of neurons that fire (default: 0)"
    )
    parser.add_argument("--teacher", type=Path, help="checkpoint whose decoder features the network learns from too")
    parser.add_argument(
        "--distillation", type=float, default=0.0, help="added to the loss per distance from --teacher (default: 0)"
    )
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="bf16: mixed precision")
    parser.add_argument("--freeze-norm", action="store_true", help="train with the batch norms' running statistics")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads of this process (default: torch's)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")
    parser.add_argument("--save-every", type=int, default=100, help="steps between last.pt (default: 100)")
    parser.add_argument("--validate-every", type=int, default=500, help="steps between validations (default: 500)")
    parser.add_argument("--validation-images", type=int, default=8, help="images scored each time (default: 8)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a training from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: train(arguments))


def train(arguments: argparse.Namespace) -> int:
    """Build everything that the flags name and train to the end."""
    import torch

    from esdnet.checkpoint import load_checkpoint
    from esdnet.data import open_training_source
    from esdnet.memory import keep_freed_memory
    from esdnet.training import Trainer, draw_batch

    config = _training_config(arguments)
    _check_run(arguments.out, arguments.resume)
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(config.seed)
    source = open_training_source(
        arguments.data,
        arguments.photos,
        arguments.streaks,
        arguments.pasted,
        arguments.held_out,
        arguments.dry_share,
        arguments.light_share,
    )
    model = _initial_model(arguments, lambda: draw_batch(source, config, 0, 0)[0])
    teacher = load_checkpoint(arguments.teacher) if arguments.teacher else None
    worker = _join_workers(arguments.device)
    try:
        trainer = Trainer(model, source, config, arguments.out, worker, teacher)
        check_writable("--out", arguments.out, is_folder=True)
        if arguments.resume:
            trainer.resume()
        if worker.rank == 0:
            print(f"{arguments.out}: from step {trainer.step} to {config.steps} on {worker.device}", file=sys.stderr)
        finished = trainer.run()
    finally:
        if worker.size > 1:
            torch.distributed.destroy_process_group()
    if not finished:
        print(f"{arguments.out}: stopped at step {trainer.step}; --resume continues", file=sys.stderr)
    return 0 if finished else 1


def _training_config(arguments: argparse.Namespace) -> TrainingConfig:
    from esdnet.training import TrainingConfig

    return TrainingConfig(
        **{name: getattr(arguments, name) for name in TrainingConfig.__dataclass_fields__ if hasattr(arguments, name)}
        | {
            "l1_weight": arguments.l1_weight if arguments.loss == "l1_ssim" else 0.0,
            "log_weight": arguments.log_weight if arguments.loss == "log_ssim" else 0.0,
            "ssim_on_luma": arguments.ssim_on == "y",
        }
    )


def _check_run(out: Path, resume: bool) -> None:
    last = out / "last.pt"
    if resume and not last.is_file():
        raise UserError(f"{last}: nothing to resume from; leave out --resume to start a run")
    if not resume and last.exists():
        raise UserError(f"{out}: holds a run already; --resume continues it, another --out starts a new one")


def _initial_model(arguments: argparse.Namespace, rainy: Callable[[], Tensor]) -> Network:
    """The network before training: that of the run resumed or of a checkpoint, random from a preset, or the preset's
    with weights copied from a checkpoint's released network, whose attention is measured on `rainy()`."""
    from esdnet.checkpoint import load_network
    from esdnet.model import ESDNet
    from esdnet.weight_copy import copy_weights

    preset_name = arguments.preset
    source = arguments.out / "last.pt" if arguments.resume else arguments.init
    if source is None:
        if preset_name is None:
            raise UserError(f"--preset is missing: one of {', '.join(PRESETS)}, or --init with a checkpoint")
        return build(preset(preset_name)).train()
    model = load_network(source)
    if preset_name is None or model.config == preset(preset_name):
        return model.train()
    config = preset(preset_name)
    if arguments.resume or not isinstance(model, ESDNet) or config != spike_driven(model.config):
        raise UserError(f"{source}: holds {model.config}, but --preset {preset_name} is {config}")
    if arguments.freeze_norm:
        raise UserError(
            f"{source}: holds the batch statistics of a released network; its spike-driven one needs its own first, "
            "leave out --freeze-norm"
        )
    network = ESDNet(spike_driven(model.config))
    copy_weights(model, network, rainy())
    print(f"{source}: its weights were copied to the spike-driven network", file=sys.stderr)
    return network.train()


def _join_workers(device_name: str) -> Worker:
    """Join the processes that torchrun started, if it did; one GPU per process where there are GPUs."""
    import torch

    from esdnet.training import Worker

    rank, size, local = (int(os.environ.get(name, default)) for name, default in
                         (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))  # fmt: skip
    device = torch.device(choose_device(device_name))
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if size > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Worker(rank, size, device)


if __name__ == "__main__":
    sys.exit(main())
