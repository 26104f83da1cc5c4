"""Every tolerance of the tests, with its reason. Where no tolerance is named, equality is exact."""

from export.graph.agreement import FLOAT32_MEMBRANE, FLOAT64_OUTPUT

# FLOAT64_OUTPUT: same formula, sums in another order (batch norm folded, means over other strides): measured 1e-15.
# FLOAT32_MEMBRANE: one convolution against the same in float64, values of order 1, up to 1,728 terms: measured 2e-6.
__all__ = ["FLOAT32_MEMBRANE", "FLOAT64_OUTPUT"]

# Gradients of the fused LIF against snnTorch's autograd: snnTorch hands spikes, and so their gradients, on in float32.
FLOAT32_GRADIENT = 1e-6
# Energies as sums of some ten products of decimal prices in float64: measured 4e-16.
ENERGY = 1e-12
