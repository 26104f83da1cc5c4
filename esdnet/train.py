"""`python -m esdnet.train`: trains an ESDNet on pairs made on the fly or read from a folder.

In: a preset (or a checkpoint), data, and a folder for the run; or a run to go on with. Out: checkpoints and a log; see
esdnet.training.loop. Several processes train together under `torchrun`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.command_line import program_name, require_extra
from esdnet.command.device import DEVICES, choose_device
from esdnet.command.errors import BackendDied, UserError, report_user_errors
from esdnet.command.writing import check_folder, make_folder
from esdnet.networks.architectures import PRESETS, build, preset
from esdnet.networks.bundled import find_checkpoint
from esdnet.networks.esdnet.config import ESDNetConfig, spike_driven
from esdnet.training.config import (
    LOSSES,
    DataConfig,
    TrainingConfig,
    add_flags,
    check_unchanged,
    given_flags,
    loss_name,
)

if TYPE_CHECKING:
    from torch import Tensor

    from esdnet.networks.architectures import Network
    from esdnet.training.data import PairSource
    from esdnet.training.loop import Worker


def build_parser() -> argparse.ArgumentParser:
    """All flags; most are those of a run's settings."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Train an ESDNet.")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, with its settings; --steps may be more than they were",
    )
    parser.add_argument("--preset", help=f"the architecture: {', '.join(PRESETS)} (default: that of --init)")
    add_flags(parser, DataConfig)
    add_flags(parser, TrainingConfig)
    parser.add_argument("--loss", choices=tuple(LOSSES), help="default: l1_ssim")
    parser.add_argument("--ssim-on", choices=("rgb", "y"), help="planes SSIM is taken on (default: rgb)")
    parser.add_argument("--threads", type=int, help="CPU threads of this process (default: torch's)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a training from the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return report_user_errors(lambda: train(arguments))


def train(arguments: argparse.Namespace) -> int:
    """Build everything that the flags name and train to the end."""
    require_extra("train", "training")
    _check_run(arguments)
    config, data = _settings(arguments)
    import torch

    from esdnet.command.memory import keep_freed_memory
    from esdnet.networks.checkpoint import load_checkpoint
    from esdnet.training.loop import Trainer, draw_batch

    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(config.seed)
    source = _open_source(data)
    model = _initial_model(arguments, data, lambda: draw_batch(source, config, 0, 0)[0])
    teacher = load_checkpoint(data.teacher) if data.teacher else None
    worker = _join_workers(arguments.device)
    try:
        trainer = Trainer(model, source, config, arguments.out, worker, teacher, data)
        make_folder(arguments.out)
        if arguments.resume:
            trainer.resume(may_grow=True)
        if worker.rank == 0:
            print(f"{arguments.out}: from step {trainer.step} to {config.steps} on {worker.device}", file=sys.stderr)
        finished = trainer.run()
    except RuntimeError as error:
        if worker.size == 1 or not _is_lost_connection(error):
            raise
        raise BackendDied(
            f"{arguments.out}: lost one of {worker.size} processes at step {trainer.step}; start all of them again with"
            " --resume"
        ) from error
    finally:
        if worker.size > 1:
            torch.distributed.destroy_process_group()
    if not finished:
        print(f"{arguments.out}: stopped at step {trainer.step}; --resume continues", file=sys.stderr)
    return 0 if finished else 1


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether it is what a process sees of the others' end: gloo has no error of its own."""
    import torch

    return isinstance(error, torch.distributed.DistBackendError) or "gloo" in str(error)


def _check_run(arguments: argparse.Namespace) -> None:
    """UserError for a run that cannot begin or go on there, or that no network is named for."""
    out, last = arguments.out, arguments.out / "last.pt"
    check_folder("--out", out)
    if arguments.resume and not last.is_file():
        raise UserError(f"{last}: nothing to resume from; leave out --resume to start a run")
    if not arguments.resume and last.exists():
        raise UserError(f"{out}: holds a run already; --resume continues it, another --out starts a new one")
    if arguments.preset is not None:
        preset(arguments.preset)
    elif not arguments.resume and arguments.init is None:
        raise UserError(f"--preset is missing: one of {', '.join(PRESETS)}, or --init with a checkpoint")


def _settings(arguments: argparse.Namespace) -> tuple[TrainingConfig, DataConfig]:
    """What the flags say; where they say nothing, the run that is resumed, or the defaults."""
    given, given_data = _given(arguments), _given_data(arguments)
    if not arguments.resume:
        return TrainingConfig(**given), DataConfig(**given_data)
    from esdnet.training.loop import learning_rate, read_run

    last = arguments.out / "last.pt"
    extra = read_run(last)["extra"]
    begun = extra["training"]
    if arguments.loss not in (None, loss_name(begun)):
        raise UserError(
            f"{last}: the run began with loss {loss_name(begun)}, found {arguments.loss}; resume it with the former"
        )
    config = TrainingConfig(**begun | given)
    data = DataConfig(**(extra.get("data") or {}) | given_data)
    if extra.get("data"):
        check_unchanged(last, extra["data"], data)
    if config.steps > begun["steps"] and not int(os.environ.get("RANK", 0)):
        step = extra["step"]
        before, now = learning_rate(step - 1, TrainingConfig(**begun)), learning_rate(step, config)
        print(
            f"{arguments.out}: {config.steps} steps instead of {begun['steps']}: the learning rate goes on at"
            f" {now:.2e}, after {before:.2e}, and falls until the new end",
            file=sys.stderr,
        )
    return config, data


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of the training that have been given."""
    given = given_flags(arguments, TrainingConfig)
    if not arguments.resume:  # else the run has its loss
        loss = arguments.loss or loss_name(asdict(TrainingConfig()))
        for name in LOSSES[loss].keys() & given.keys():
            if not LOSSES[loss][name]:
                [owner] = [other for other, weights in LOSSES.items() if weights[name]]
                raise UserError(f"--{name.replace('_', '-')}: is that of --loss {owner}, found --loss {loss}")
        given = LOSSES[loss] | given
    if arguments.ssim_on:
        given["ssim_on_luma"] = arguments.ssim_on == "y"
    return given


def _given_data(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same for data and checkpoints, their paths made absolute, so that a run can be resumed from anywhere."""
    given = given_flags(arguments, DataConfig)
    for name in {"photos", "streaks", "pasted", "data"} & given.keys():
        if (name, given[name]) != ("data", "synthetic"):
            given[name] = str(Path(given[name]).resolve())
    for name in {"init", "teacher"} & given.keys():
        given[name] = str(find_checkpoint(given[name]).resolve())
    return given


def _open_source(data: DataConfig) -> PairSource:
    from esdnet.training.data import open_training_source

    photos, streaks, pasted = (Path(folder) if folder else None for folder in (data.photos, data.streaks, data.pasted))
    return open_training_source(data.data, photos, streaks, pasted, data.held_out, data.dry_share, data.light_share)


def _initial_model(arguments: argparse.Namespace, data: DataConfig, rainy: Callable[[], Tensor]) -> Network:
    """The network before training: that of the run resumed or of a checkpoint, random from a preset, or the preset's
    with weights copied from a checkpoint's released network, whose attention is measured on `rainy()`, or from one of
    other steps or another gate."""
    from esdnet.networks.checkpoint import load_network
    from esdnet.networks.esdnet.model import ESDNet
    from esdnet.networks.esdnet.weight_copy import change_steps, copy_weights

    preset_name = arguments.preset
    source = arguments.out / "last.pt" if arguments.resume else data.init
    if source is None:
        return build(preset(preset_name)).train()
    model = load_network(source)
    if preset_name is None or model.config == preset(preset_name):
        return model.train()
    config = preset(preset_name)
    if arguments.resume or not isinstance(model, ESDNet) or not isinstance(config, ESDNetConfig):
        raise UserError(f"{source}: holds {model.config}, but --preset {preset_name} is {config}")
    if config == replace(model.config, steps=config.steps, gate=config.gate):
        network = ESDNet(config)
        change_steps(model, network)
        print(f"{source}: its weights were copied to T = {config.steps}, gate {config.gate}", file=sys.stderr)
        return network.train()
    if config != spike_driven(model.config):
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

    from esdnet.training.loop import Worker

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
