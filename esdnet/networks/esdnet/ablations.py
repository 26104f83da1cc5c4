"""The paper's ablations (Tables 3 to 5) as configurations of a small network, with the paper's own rows beside them.

In: nothing. Out: tables of named configurations; benchmarks/ablations.py trains and measures them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from esdnet.networks.esdnet.config import ESDNetConfig, preset

BASE = preset("tiny")


@dataclass(frozen=True)
class PaperRow:
    """What the paper prints: Rain200H, full width; docs/counting.md says why its FLOPs and energies are too low."""

    psnr: float
    ssim: float
    flops_g: float | None = None
    energy_uj: float | None = None


@dataclass(frozen=True)
class Row:
    """One network of a table."""

    name: str
    config: ESDNetConfig
    paper: PaperRow


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    title: str
    rows: tuple[Row, ...]


def _row(name: str, paper: PaperRow, **changes: object) -> Row:
    return Row(name, replace(BASE, **changes), paper)  # type: ignore[arg-type]


TABLES: dict[int, Table] = {
    3: Table(
        "Residual blocks",
        (
            _row(
                "ANN-ResNet, T = 1", PaperRow(28.79, 0.8942, 83.453, 1.043e6),
                block="ann_resnet", norm="bn", attention="none", steps=1,
            ),
            _row("MS-ResNet", PaperRow(25.20, 0.8230, 6.970, 8.730e4), block="ms_resnet", attention="none"),
            _row("SEW-ResNet", PaperRow(26.61, 0.8613, 6.998, 8.765e4), block="sew_resnet", attention="none"),
            _row("SRB", PaperRow(29.31, 0.9033, 7.320, 9.150e4)),
        ),
    ),
    4: Table(
        "Time steps",
        (
            _row("T = 1", PaperRow(28.69, 0.8645, 7.023, 8.779e4), steps=1),
            _row("T = 2", PaperRow(28.81, 0.8963, 7.150, 8.938e4), steps=2),
            _row("T = 4", PaperRow(29.31, 0.9033, 7.320, 9.150e4)),
            _row("T = 6", PaperRow(29.40, 0.9040, 7.490, 9.366e4), steps=6),
        ),
    ),
    5: Table(
        "Designs",
        (
            _row("(a) BN", PaperRow(28.26, 0.8779), norm="bn", attention="none", refinement="time_mean"),
            _row("(b) tdBN", PaperRow(28.49, 0.8724), attention="none", refinement="time_mean"),
            _row("(c) BN, MAU", PaperRow(29.07, 0.8984), norm="bn", refinement="time_mean"),
            _row("(d) tdBN, FRB", PaperRow(28.59, 0.8931), attention="none"),
            _row("(e) tdBN, MAU", PaperRow(28.78, 0.8968), refinement="time_mean"),
            _row("(f) tdBN, MAU, FRB", PaperRow(29.31, 0.9033)),
        ),
    ),
}  # fmt: skip
