"""Loihi's fixed-point neuron in one place: its widths, which define what it computes, and the limits of its numbers.

Whoever computes with it or fits numbers into it takes them from here: the graph's LoihiNeuron, quantisation, netx
files, design rules, Lava. Source: Lava's bit-accurate LIF models (lava-nc 0.10), Davies et al. 2018.
"""

CURRENT_SHIFT = 6  # a sum a arrives as a << 6; thresholds and biases are shifted alike
DECAY_BITS = 12  # decays are 4096ths
STATE_LIMIT = 2**23  # current and membrane have 24 bits
THRESHOLD_BITS = 17  # without sign
CURRENT_LIMIT = 2**17 - 1  # what arrives at a neuron has 18 bits
BIAS_LIMIT = 2**12 - 1  # a bias has 13 bits; its lowest is one less than -4095
WEIGHT_LIMIT = 127  # 8 bits, the same both ways
