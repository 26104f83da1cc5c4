"""Training losses: 1 - SSIM, alone, with a Charbonnier term or with the logarithm of the error; and a price on spikes.

Images are (N, 3, H, W), RGB in [0, 1], any float dtype.

In: the restored and the clean batch. Out: one scalar to minimise, computed in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.gate import LearntGate
from esdnet.networks.esdnet.lif import LIF

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004
C1, C2 = 0.01**2, 0.03**2  # of a data range of 1
CHARBONNIER_EPSILON = 1e-3
LOG_EPSILON = 1e-5  # an error of 50 dB: a dry crop that is left alone cannot be improved without end
RAINY = 0.015  # of white: the least rain that a gate is to open for
MISSED = 3.0
EARLIER_STAGE = 0.5
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # Y of ITU-R BT.601 as MATLAB's rgb2ycbcr has it, without the offset


def _smoothing_matrix(size: int, like: Tensor) -> Tensor:
    """(size, size): its product with a column is the Gaussian mean at every place, mirrored at both ends.

    On crops of 64 pixels a product of matrices is ten times as fast as a convolution of one channel, backward included.
    """
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    identity = torch.eye(size, dtype=like.dtype, device=like.device).unsqueeze(1)
    padded = F.pad(identity, (WINDOW // 2, WINDOW // 2), mode="reflect")
    return F.conv1d(padded, (weights / weights.sum()).view(1, 1, -1)).squeeze(1).t()


def _smooth(planes: Tensor) -> Tensor:
    """Gaussian means of (..., H, W), of the same size: mirrored at the border, so that every pixel of a crop counts."""
    rows, columns = (_smoothing_matrix(size, planes) for size in planes.shape[-2:])
    return rows @ planes @ columns.t()


def luma(rgb: Tensor) -> Tensor:
    """Y without its offset of 16: (N, 3, H, W) -> (N, 1, H, W)."""
    weights = torch.tensor(LUMA, dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    return (rgb * weights).sum(1, keepdim=True)


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) at every pixel: two (..., H, W) -> (..., H, W), both sides at least 6.

    Differentiable. Statistics are the population's, as in the original MATLAB code.
    """
    mean_a, mean_b, square_a, square_b, product = _smooth(torch.stack([a, b, a * a, b * b, a * b]))
    means_product, means_square = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance, variances = product - means_product, square_a + square_b - means_square
    return (2 * means_product + C1) * (2 * covariance + C2) / ((means_square + C1) * (variances + C2))


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    """Mean of sqrt((a - b)^2 + 1e-6): L1 with a smooth bottom."""
    return torch.sqrt((a - b) ** 2 + CHARBONNIER_EPSILON**2).mean()


def log_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the images of lg(mean squared error + 1e-5): minus a tenth of the mean PSNR, below 50 dB.

    What counts is by how much an image's error shrinks, not how large it is: light rain counts as much as heavy rain.
    """
    return torch.log10(((a - b) ** 2).mean((1, 2, 3)) + LOG_EPSILON).mean()


class RestorationLoss(nn.Module):
    """`l1_weight` * Charbonnier on RGB + `log_weight` * log error on RGB + 1 - SSIM on RGB or on luma; with weights of
    0 the paper's SSIM loss.

    Of a network in stages each stage's image is judged: the last fully, those before by EARLIER_STAGE.
    """

    def __init__(self, l1_weight: float = 0.0, on_luma: bool = False, log_weight: float = 0.0) -> None:
        super().__init__()
        self.l1_weight, self.on_luma, self.log_weight = l1_weight, on_luma, log_weight

    def forward(self, restored: Tensor | tuple[Tensor, ...], clean: Tensor) -> Tensor:
        """The loss of a batch, or of what each stage made of it; a scalar in float32."""
        if isinstance(restored, Tensor):
            return self._of_one(restored.float(), clean.float())
        *earlier, last = (self._of_one(each.float(), clean.float()) for each in restored)
        return last + EARLIER_STAGE * sum(earlier)

    def _of_one(self, restored: Tensor, clean: Tensor) -> Tensor:
        planes = (luma(restored), luma(clean)) if self.on_luma else (restored, clean)
        loss = 1 - ssim_map(*planes).mean()
        if self.l1_weight:
            loss = loss + self.l1_weight * charbonnier(restored, clean)
        if self.log_weight:
            loss = loss + self.log_weight * log_error(restored, clean)
        return loss


class FiringLoss(nn.Module):
    """`loss` plus `price` times the share of all neurons and steps of `network` that fired in the forward before,
    each weighed by the channels of its layer.

    In: the restored and the clean batch, as `loss` takes them. Out: a scalar in float32. What a spike-driven network
    costs is additions, one for every spike and every weight that reads it; those weights grow with the channels.
    UserError for a network without LIF neurons.
    """

    def __init__(self, loss: nn.Module, network: nn.Module, price: float) -> None:
        super().__init__()
        self.loss, self.price = loss, price
        self._fired: list[Tensor] = []
        self._most = 0
        neurons = [module for module in network.modules() if isinstance(module, LIF)]
        if not neurons:
            raise UserError("a price on spikes needs a network with LIF neurons, found one without")
        for neuron in neurons:
            neuron.register_forward_hook(self._weigh)

    def _weigh(self, module: nn.Module, inputs: tuple[Tensor], spikes: Tensor) -> None:
        channels = spikes.shape[2]  # of (T, N, C, H, W)
        self._fired.append(channels * spikes.sum(dtype=torch.float32))
        self._most += channels * spikes.numel()

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The loss of a batch, and of the spikes that it took."""
        share = torch.stack(self._fired).sum() / self._most
        self._fired.clear()
        self._most = 0
        return self.loss(restored, clean) + self.price * share


class GateLoss(nn.Module):
    """`loss` plus how badly the learnt gate of `network` told where rain lies in the forward before.

    In: the restored and the clean batch, as `loss` takes them; the rainy one, (N, 3, H, W), is seen on its way into the
    network. Rain is where a channel gained RAINY of white. Binary cross-entropy of the last neurons' membranes, in
    blocks of 2x2 pixels, rain missed by MISSED times as bad as work for nothing. Out: a scalar in float32. UserError
    for a network without a learnt gate.
    """

    def __init__(self, loss: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        gate = getattr(network, "gate", None)
        if not isinstance(gate, LearntGate):
            raise UserError("a loss on the gate needs a network that learns its gate, found one without")
        self._seen: dict[str, Tensor] = {}
        network.register_forward_pre_hook(lambda module, inputs: self._seen.update(rainy=inputs[0]))
        gate.fires.register_forward_hook(self._watch)

    def _watch(self, neuron: LIF, inputs: tuple[Tensor], spikes: Tensor) -> None:
        self._seen["logits"] = neuron.slope * (inputs[0][0].float() - neuron.threshold)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The loss of a batch, and of the gate that it was restored behind."""
        gained = (self._seen["rainy"] - clean).amax(1, keepdim=True)
        rain = F.max_pool2d((gained > RAINY).float(), 2)
        weight = torch.tensor(MISSED, device=rain.device)
        return self.loss(restored, clean) + F.binary_cross_entropy_with_logits(
            self._seen["logits"], rain, pos_weight=weight
        )
