"""Rules for torch's operations but convolutions, products and what is fused: moves, element-wise work, reductions.

A rule sees an operation after it ran, counts its work, and says what its result holds. torch_table.py gives them names.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor

from export.graph import elementwise as cost
from hw_sim.counter.synapses import Axis, all_taps
from hw_sim.counter.torch_context import Call, Context
from hw_sim.counter.torch_values import storage_of
from hw_sim.counter.values import GATED, NUMBERS, Value, added, chosen, complement, constant, joined, multiplied, summed

Rule = Callable[[Context, Call], None]


def tensors(values: Any) -> list[Tensor]:
    """The tensors of an argument."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, (tuple, list)):
        return [value for value in values if isinstance(value, Tensor)]
    return []


def value_of(run: Context, operand: Any) -> Value:
    """What an argument holds. A number, or a tensor of one element beside others, is that number."""
    if isinstance(operand, Tensor):
        return run.values.of(operand)
    return constant(operand) if isinstance(operand, (int, float)) else NUMBERS


def _operand_values(run: Context, operands: tuple[Any, Any]) -> list[Value]:
    """Of two operands; beside spikes a single number is looked at: times 1 they stay what they are."""
    left, right = operands
    first = run.values.of(left) if isinstance(left, Tensor) else value_of(run, left)
    second = run.values.of(right) if isinstance(right, Tensor) else value_of(run, right)
    if first is second is NUMBERS:
        return [first, second]
    if first is NUMBERS and second.is_spikes:
        first = _one_number(run, left)
    elif second is NUMBERS and first.is_spikes:
        second = _one_number(run, right)
    return [first, second]


def _set(run: Context, call: Call, value: Value) -> None:
    if value is not NUMBERS or not call.fresh:  # what is new holds numbers
        run.values.write(call.result, value, call.fresh)


def _set_gated(run: Context, call: Call, value: Value, values: list[Value]) -> None:
    """What it holds; values: what it was made of."""
    if value is not NUMBERS or not call.fresh:
        run.values.write(call.result, run.gate(call, values) if value is GATED else value, call.fresh)


def _work(run: Context, call: Call, adds: int, muls: int, values: list[Value] | None = None) -> None:
    """Element-wise work in the row of the running module, and the words that it moves. Index arithmetic is none.

    values: of the first arguments, where they are known already.
    """
    out, value_of = call.result, run.values.of
    words, bits = out.numel(), 0
    for place, operand in enumerate(call.args):
        if isinstance(operand, Tensor):
            value = values[place] if values and place < len(values) else value_of(operand)
            if value is NUMBERS or not value.is_spikes:
                words += operand.numel()
            else:
                bits += operand.numel()
    if out.is_floating_point() or out.is_complex():
        counts = run.names.frames[-1].rest.counts
        counts["adds"] += adds
        counts["muls"] += muls
        counts["activation_words"] += words
        counts["spike_bits"] += bits


# What moves values, and what makes them


def keep(run: Context, call: Call) -> None:
    """Views, copies, joins, places: what it returns holds what it read."""
    first = call.args[0]
    if isinstance(first, Tensor):
        value = run.values.of(first)
        if not (call.fresh and value is NUMBERS) and storage_of(call.result) != storage_of(first):
            _set(run, call, value)
        return
    _set(run, call, joined([run.values.of(tensor) for tensor in tensors(first)]))


def copy_in(source: int, run: Context, call: Call) -> None:
    """Values written into a tensor, or beside what it holds."""
    if call.get(3, "accumulate") is True or call.kwargs.get("reduce") is not None:  # added to it, or worse
        return add_in(source, run, call)
    value = value_of(run, call.args[source])
    if call.func._schema.name == "aten::copy_":
        return _set(run, call, value)
    _set(run, call, joined([run.values.of(call.args[0]), value]))


def add_in(source: int, run: Context, call: Call) -> None:
    """Values added to those at some places."""
    added_values = call.args[source]
    size = added_values.numel() if isinstance(added_values, Tensor) else call.args[source - 1].numel()
    _work(run, call, size, 0)
    _set(run, call, NUMBERS)


def dropout(run: Context, call: Call) -> None:
    """At inference nothing; in training a mask and a factor for each element."""
    if call.fresh and storage_of(call.result) == storage_of(call.args[0]):
        return
    _work(run, call, 0, 2 * call.result.numel())
    _set(run, call, NUMBERS)


def pad(run: Context, call: Call) -> None:
    """Zeros go with spikes; another number does not."""
    fill = call.get(2, "value") or 0.0
    _set(run, call, joined([run.values.of(call.args[0]), constant(fill)]))


def fill(number: float | None, place: int, run: Context, call: Call) -> None:
    """A new tensor of one number, given or an argument."""
    given = call.get(place, "fill_value") if number is None else number
    _set(run, call, constant(given) if isinstance(given, (int, float)) else NUMBERS)


def analog(run: Context, call: Call) -> None:
    """Numbers, without work."""
    for tensor in tensors(call.args):
        run.values.of(tensor)
    _set(run, call, NUMBERS)


def nothing(run: Context, call: Call) -> None:
    """Shares what it read, says something about it, or makes nothing."""


# Element-wise operations


def pointwise(name: str, run: Context, call: Call) -> None:
    """So much for each element, as elementwise.py says; numbers."""
    adds, muls = cost.COST[name]
    size = call.result.numel()
    _work(run, call, adds * size, muls * size)
    _set(run, call, NUMBERS)


def add(run: Context, call: Call) -> None:
    """Sum; a number 0 costs nothing, a factor other than 1 a multiplication."""
    values, plain = _sum(run, call)
    _set(run, call, added(values) if plain else NUMBERS)


def subtract(reversed: bool, run: Context, call: Call) -> None:
    """Difference, the same. reversed: the second operand less the first."""
    values, plain = _sum(run, call)
    made = complement(*values[::-1] if reversed else values) if plain else NUMBERS
    _set_gated(run, call, made, values)


def _sum(run: Context, call: Call) -> tuple[list[Value], bool]:
    """What the operands hold, and whether their factor is 1."""
    left, right = call.args[:2]
    values = _operand_values(run, (left, right))
    alpha = call.get(2, "alpha", 1) if call.kwargs or len(call.args) > 2 else 1
    size = call.result.numel()
    number = not (isinstance(left, Tensor) and isinstance(right, Tensor))
    free = number and 0.0 in (values[0].fill, values[1].fill)
    _work(run, call, 0 if free else size, 0 if alpha in (1, -1) else size, values)
    return values, bool(alpha == 1)


def mul(run: Context, call: Call) -> None:
    """Product; a number 1 or -1 costs nothing."""
    values = _operand_values(run, (call.args[0], call.args[1]))
    size = call.result.numel()
    sign = not isinstance(call.args[1], Tensor) and call.args[1] in (1, -1)
    _work(run, call, 0, 0 if sign else size, values)
    _set_gated(run, call, multiplied(values), values)


def div(run: Context, call: Call) -> None:
    """Quotient: one multiplication."""
    values = _operand_values(run, (call.args[0], call.args[1]))
    size = call.result.numel()
    _work(run, call, 0, 0 if values[1].fill == 1.0 else size)
    _set(run, call, values[0] if values[1].fill == 1.0 else NUMBERS)


def power(run: Context, call: Call) -> None:
    """A square is one multiplication, another power a table."""
    pointwise("square" if call.args[1] == 2 else "pow", run, call)


def fused_add(run: Context, call: Call) -> None:
    """x + factor a b, or a / b."""
    size = call.result.numel()
    factor = call.kwargs.get("value", 1)
    _work(run, call, size, size if factor in (1, -1) else 2 * size)
    _set(run, call, NUMBERS)


def compare(run: Context, call: Call) -> None:
    """A threshold was crossed or not: spikes, if somebody reads them. Equality is no threshold."""
    _set(run, call, run.fire(call))
    _comparison(run, call)  # counted last: whose spikes they are is told by what ran before


def equal(run: Context, call: Call) -> None:
    """Equal or not: numbers, as no threshold was crossed."""
    _comparison(run, call)
    _set(run, call, NUMBERS)


def _comparison(run: Context, call: Call) -> None:
    """One addition per element, but for whole numbers, which are indices."""
    numbers = False
    for operand in call.args:
        if isinstance(operand, Tensor):
            run.values.of(operand)
            numbers = numbers or operand.is_floating_point()
    if numbers:
        run.names.frames[-1].rest.counts["adds"] += call.result.numel()


def heaviside(run: Context, call: Call) -> None:
    """A comparison with 0, if what stands at 0 is 0 or 1."""
    at_zero = call.args[1]
    plain = at_zero.numel() == 1 and float(at_zero) in (0.0, 1.0)
    if plain:
        compare(run, call)
    else:
        pointwise("compare", run, call)


def logic(run: Context, call: Call) -> None:
    """Gates of spikes by spikes are spikes."""
    out = call.result
    values = [run.values.of(tensor) for tensor in tensors(call.args)]
    if all(value.is_spikes for value in values):
        run.names.frames[-1].rest.counts["adds"] += out.numel()
        _set_gated(run, call, GATED, values)
    else:
        _set(run, call, NUMBERS)


def where(run: Context, call: Call) -> None:
    """One of two values at each place."""
    if len(call.args) < 3:
        return analog(run, call)
    condition, yes, no = call.args
    values = [run.values.of(condition), *(_one_number(run, operand) for operand in (yes, no))]
    _set_gated(run, call, chosen(*values), values)


def _one_number(run: Context, operand: Any) -> Value:
    if isinstance(operand, Tensor) and operand.numel() == 1 and run.values.of(operand) is NUMBERS:
        return constant(float(operand))
    return value_of(run, operand)


def masked_fill(run: Context, call: Call) -> None:
    """A number at some places."""
    _set(run, call, joined([run.values.of(call.args[0]), _one_number(run, call.args[2])]))


# Reductions, pools, norms


def reduce(name: str, run: Context, call: Call) -> None:
    """Many values to one, as elementwise.py says; sums of spikes are graded, their maximum a spike."""
    out, read = call.result, call.args[0]
    if name in ("max", "min") and len(call.args) > 1 and isinstance(call.args[1], Tensor):
        return pointwise("maximum", run, call)
    _work(run, call, *cost.reduction(name, read.numel(), out.numel()))
    value = run.values.of(read)
    keeps = {"max": value, "min": value, "any": value, "all": value, "sum": summed(value), "cumsum": summed(value)}
    _set(run, call, keeps.get(name, NUMBERS))


def pool(average: bool, run: Context, call: Call) -> None:
    """n - 1 additions or comparisons for the n values of a window, padding apart; an average multiplies once more."""
    out, read = call.result, call.args[0]
    axes = int(call.func._schema.name.split("pool")[1][0])
    windows = (_adaptive if "adaptive" in call.func._schema.name else _sliding)(call, axes, average)
    values = prod(windows) * (read.numel() // prod(read.shape[-axes:]))
    _work(run, call, max(0, values - out.numel()), out.numel() if average else 0)
    _set(run, call, NUMBERS if average else run.values.of(read))


def _adaptive(call: Call, axes: int, average: bool) -> list[int]:
    """Values in all windows along each axis: from floor(i n / m) to ceil((i + 1) n / m)."""
    sizes = zip(call.args[0].shape[-axes:], call.result.shape[-axes:], strict=True)
    return [sum(-(-(i + 1) * n // m) - i * n // m for i in range(m)) for n, m in sizes]


def _sliding(call: Call, axes: int, average: bool) -> list[int]:
    def spread(numbers: Any) -> list[int]:
        numbers = [numbers] if isinstance(numbers, int) else list(numbers)
        return numbers * axes if len(numbers) == 1 else numbers

    kernel = spread(call.args[1])
    stride, padding = spread(call.get(2, "stride") or kernel), spread(call.get(3, "padding", 0))
    dilation = [1] * axes if average else spread(call.get(4, "dilation", 1))
    sizes = zip(call.args[0].shape[-axes:], call.result.shape[-axes:], kernel, stride, padding, dilation, strict=True)
    return [all_taps(Axis(*numbers)) for numbers in sizes]


def softmax(run: Context, call: Call) -> None:
    """Along one axis."""
    read, axis = call.args[0], call.args[1]
    length = read.shape[axis] if read.dim() else 1
    _work(run, call, *cost.softmax(read.numel(), read.numel() // max(1, length)))
    _set(run, call, NUMBERS)


def batch_norm(run: Context, call: Call) -> None:
    """At inference a factor and a summand per element; in training the statistics of the batch too."""
    read = call.args[0]
    training = bool(call.get(5, "training", False))
    adds, muls = cost.normalisation(read.numel(), read.shape[1], True) if training else (read.numel(), read.numel())
    _work(run, call, adds, muls)
    _set(run, call, NUMBERS)


def norm(run: Context, call: Call) -> None:
    """Layer, group and instance norm, by how many groups share their statistics."""
    read, name = call.args[0], call.func._schema.name.removeprefix("aten::")
    if name in ("layer_norm", "native_layer_norm"):
        groups, affine = read.numel() // max(1, prod(call.args[1])), call.get(2, "weight") is not None
    elif name == "group_norm":
        groups, affine = read.shape[0] * call.args[1], call.get(2, "weight") is not None
    elif name == "native_group_norm":
        groups, affine = read.shape[0] * call.args[6], call.args[1] is not None
    else:
        groups, affine = read.shape[0] * read.shape[1], call.get(1, "weight") is not None
    _work(run, call, *cost.normalisation(read.numel(), groups, affine))
    _set(run, call, NUMBERS)


def sort(run: Context, call: Call) -> None:
    """Along one axis; sorted spikes are spikes."""
    read = call.args[0]
    axis = -1 if "topk" in call.func._schema.name else call.get(1, "dim", -1)
    axis = axis if isinstance(axis, int) and not isinstance(axis, bool) else -1
    length = read.shape[axis] if read.dim() else 1
    _work(run, call, *cost.sorting(read.numel(), read.numel() // max(1, length)))
    _set(run, call, run.values.of(read))


def embedding_bag(run: Context, call: Call) -> None:
    """Sums of rows that are looked up."""
    out, indices = call.result, call.args[1]
    _work(run, call, (indices.numel() - out.shape[0]) * out.shape[1], 0)
    _set(run, call, NUMBERS)
