"""Attention and recurrent layers that torch runs as one operation: counted by their shapes, as if taken apart.

Values inside are not seen: each is taken not to be 0, and analog. Docs list what these are.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from export.graph import elementwise as cost
from hw_sim.counter.ledger import Layer
from hw_sim.counter.torch_context import Call, Context
from hw_sim.counter.torch_products import book_layer, book_pair
from hw_sim.counter.values import NUMBERS


def attention(run: Context, call: Call) -> None:
    """scaled_dot_product_attention: scores, softmax, weighted sum. All scores count, those that a mask hides too."""
    query, key, value = call.args[:3]
    name = run.names.of_product()
    scores = prod(query.shape[:-1]) * key.shape[-2]
    book_pair(run, query, key.transpose(-2, -1), name)
    _book_shape(run, f"{name} of values", value, prod(query.shape[:-1]), key.shape[-2], value.shape[-1])
    adds, muls = cost.softmax(scores, prod(query.shape[:-1]))
    masked = scores if call.get(3, "attn_mask") is not None else 0
    run.names.frames[-1].rest.add(adds=adds + masked, muls=muls + query.numel(), activation_words=2 * scores)
    run.ledger.by_shape.add(f"{name} of values")
    run.values.write(call.out, NUMBERS, fresh=True)


def _book_shape(run: Context, name: str, read: Tensor, rows: int, inner: int, outputs: int) -> None:
    """A product (rows, inner) by (inner, outputs) of values that are not seen."""
    taps = rows * inner * outputs
    layer = Layer(name, "linear", "analog", (inner, rows // read.shape[0], 1), (outputs, rows // read.shape[0], 1))
    run.ledger.row(layer).add(
        read.shape[0], macs=taps, nonzero_macs=taps, dense_taps=taps, activation_words=rows * (inner + outputs) + inner
    )


def recurrent(run: Context, call: Call) -> None:
    """lstm, gru, rnn: the first layer's input is seen, hidden states are not."""
    kind = call.func._schema.name.removeprefix("aten::")
    read, weights = call.args[0], call.args[2]
    biased, layers, both = call.args[3], call.args[4], call.args[7]
    per = len(weights) // (layers * (1 + both))
    runs = prod(read.shape[:-1])
    for index in range(layers * (1 + both)):
        part = weights[index * per : (index + 1) * per]
        hidden = part[0].shape[0] // cost.GATES[kind]
        _book_products(run, read, part, biased, runs, first=index < 1 + both)
        adds, muls = cost.STEP[kind]
        sums = cost.GATES[kind]  # of both products
        run.names.frames[-1].rest.add(
            adds=(adds + sums) * hidden * runs,
            muls=muls * hidden * runs,
            membrane_words=(4 if kind == "lstm" else 2) * hidden * runs,
        )
    for out in call.out:
        run.values.write(out, NUMBERS, fresh=True)


def _book_products(run: Context, read: Tensor, part: list[Tensor], biased: bool, runs: int, first: bool) -> None:
    biases = list(part[2:4]) if biased else [None, None]
    names = [run.names.of_weight(weight) for weight in part]
    for place, (weight, bias) in enumerate(zip(part[:2], biases, strict=True)):
        if place == 0 and first:
            book_layer(run, read, weight, bias, (*read.shape[:-1], weight.shape[0]), weight.shape[0])
            continue
        _book_hidden(run, names[place], weight, bias, runs)
    for place in range(4 if biased else 2, len(part)):  # a projection of the hidden state
        _book_hidden(run, names[place], part[place], None, runs)


def _book_hidden(run: Context, name: str, weight: Tensor, bias: Any, runs: int) -> None:
    taps = weight.numel() * runs
    words = (weight.numel(), 0 if bias is None else bias.numel())
    for tensor in (weight, bias):
        if tensor is not None:
            run.values.of(tensor)
    layer = Layer(
        name, "linear", "analog", (weight.shape[1], 1, 1), (weight.shape[0], 1, 1),
        weight_words=words[0], bias_words=words[1],
    )  # fmt: skip
    run.ledger.row(layer).add(
        runs, macs=taps, nonzero_macs=taps, dense_taps=taps, adds=words[1] * runs, weight_words=sum(words) * runs,
        activation_words=(weight.shape[0] + weight.shape[1]) * runs,
    )  # fmt: skip
    run.ledger.by_shape.add(name)


def encoder_layer(run: Context, call: Call) -> None:
    """_transformer_encoder_layer_fwd: torch's fused encoder layer at inference."""
    read, width, heads, in_weight, in_bias, out_weight, out_bias = call.args[:7]
    norms, feed = call.args[10:14], call.args[14:18]
    _self_attention(run, read, width, heads, ((in_weight, in_bias), (out_weight, out_bias)))
    tokens = prod(read.shape[:-1])
    rest = run.names.frames[-1].rest
    for weight, bias in ((feed[0], feed[1]), (feed[2], feed[3])):
        _book_hidden(run, run.names.of_weight(weight), weight, bias, tokens)
    middle = feed[0].shape[0] * tokens
    adds, muls = cost.COST["gelu" if call.args[7] else "relu"]
    rest.add(adds=adds * middle, muls=muls * middle)
    norm = cost.normalisation(read.numel(), tokens, True)
    rest.add(adds=2 * (norm[0] + read.numel()), muls=2 * norm[1])  # two norms, two sums
    for tensor in norms:
        run.values.of(tensor)
    run.values.write(call.out, NUMBERS, fresh=True)


def multi_head(run: Context, call: Call) -> None:
    """_native_multi_head_attention of a value with itself."""
    read, _, _, width, heads, in_weight, in_bias, out_weight, out_bias = call.args[:9]
    _self_attention(run, read, width, heads, ((in_weight, in_bias), (out_weight, out_bias)))
    for out in call.out:
        if isinstance(out, Tensor):
            run.values.write(out, NUMBERS, fresh=True)


def _self_attention(
    run: Context, read: Tensor, width: int, heads: int, layers: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> None:
    tokens, length = prod(read.shape[:-1]), read.shape[-2]
    (in_weight, in_bias), (out_weight, out_bias) = layers
    book_layer(run, read, in_weight, in_bias, (*read.shape[:-1], in_weight.shape[0]), in_weight.shape[0])
    name = run.names.of_product()
    _book_shape(run, f"{name} of keys", read, tokens * heads, width // heads, length)
    _book_shape(run, f"{name} of values", read, tokens * heads, length, width // heads)
    run.ledger.by_shape.update((f"{name} of keys", f"{name} of values"))
    adds, muls = cost.softmax(tokens * heads * length, tokens * heads)
    run.names.frames[-1].rest.add(adds=adds, muls=muls + read.numel())
    _book_hidden(run, run.names.of_weight(out_weight), out_weight, out_bias, tokens)


RULES: dict[str, Any] = {
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(cost.GATES, recurrent),
    "_transformer_encoder_layer_fwd": encoder_layer,
    "_native_multi_head_attention": multi_head,
}
