"""What a training run writes down about itself: log.csv, TensorBoard events, a progress bar.

In: step, loss, learning rate, and validations as they come. Out: files in the run's folder; a bar on stderr.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from esdnet.command.errors import UserError
from esdnet.command.writing import write_text
from esdnet.training.validation import Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

HEADER = "step,loss,lr,psnr_y,ssim_y,seconds"


class RunLog:
    """log.csv, a line per save, and TensorBoard events; both go on at the step that a run resumes from."""

    def __init__(self, out: Path, step: int) -> None:
        self.path, self.started = out / "log.csv", time.monotonic()
        old = self.path.read_text().splitlines()[1:] if self.path.exists() else []
        kept = [line for line in old if int(line.split(",")[0]) <= step]
        write_text(self.path, "\n".join([HEADER, *kept]) + "\n")
        self.board = _open_board(out / "tensorboard", step)
        self.before = float(kept[-1].split(",")[-1]) if kept else 0.0

    def add(self, step: int, loss: float, lr: float, validation: Validation | None) -> None:
        """Append a line; `seconds` counts all sessions of the run."""
        scores = f"{validation.psnr:.4f},{validation.ssim:.5f}" if validation else ","
        seconds = self.before + time.monotonic() - self.started
        try:
            with self.path.open("a") as file:
                file.write(f"{step},{loss:.6f},{lr:.4e},{scores},{seconds:.0f}\n")
            self._add_to_board(step, {"loss": loss, "learning_rate": lr}, validation)
        except OSError as error:
            raise UserError(f"{error.filename or self.path}: cannot be written: {error.strerror}") from error
        if validation:
            said = f"validation {validation.psnr:.2f} dB, SSIM {validation.ssim:.4f}"
            tqdm.write(f"step {step}: loss {loss:.4f}, {said}", file=sys.stderr)

    def _add_to_board(self, step: int, values: dict[str, float], validation: Validation | None) -> None:
        if validation:
            values |= {"validation/psnr_y": validation.psnr, "validation/ssim_y": validation.ssim}
            values |= {f"firing_rate/{name}": rate for name, rate in validation.firing_rates.items()}
            for name, picture in validation.pictures.items():
                self.board.add_image(f"rainy_restored_clean/{name}", picture, step, dataformats="HWC")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        self.board.flush()

    def close(self) -> None:
        """End the thread that writes events."""
        self.board.close()


def _open_board(folder: Path, step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    try:
        return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error


def progress_bar(steps: int, start: int, shown: bool) -> tqdm[None]:
    """A bar with speed and time left, on a terminal."""
    shown = shown and sys.stderr.isatty()
    return tqdm(total=steps, initial=start, disable=not shown, unit="step", mininterval=0.5, smoothing=0.05)
