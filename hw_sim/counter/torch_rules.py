"""What each of torch's operations does to a count: one rule per operation, found by its name.

A rule sees the operation after it ran. None where torch says what an operation is made of: its parts are then counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from hw_sim.counter import elementwise as cost
from hw_sim.counter import torch_fused, torch_products
from hw_sim.counter.torch_context import Call, Context
from hw_sim.counter.values import GATED, NUMBERS, Value, added, chosen, complement, constant, joined, multiplied, summed

Rule = Callable[[Context, Call], None]


def find_rule(func: Any) -> Rule | None:
    """The rule of an operation; None: take it apart. What nobody knows is listed."""
    namespace, _, name = func._schema.name.partition("::")
    rule = RULES.get(name) or RULES.get(name.removesuffix("_")) if namespace == "aten" else None
    if rule is not None:
        return rule
    return None if is_composite(func) else partial(_unknown, func._schema.name)


def is_composite(func: Any) -> bool:
    """Whether torch makes it of other operations."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _unknown(name: str, run: Context, call: Call) -> None:
    run.ledger.list_unknown(name, sum(out.numel() for out in _tensors(call.out)))
    for out in _tensors(call.out):
        run.values.write(out, NUMBERS)


def _tensors(values: Any) -> list[Tensor]:
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
    of = run.values.of
    values = [of(operand) if isinstance(operand, Tensor) else value_of(run, operand) for operand in operands]
    if values[0] is values[1]:  # both numbers
        return values
    for index in (0, 1):
        lone, operand = values[index] is NUMBERS, operands[index]
        if lone and values[1 - index].is_spikes and isinstance(operand, Tensor) and operand.numel() == 1:
            values[index] = constant(float(operand))
    return values


def _set(run: Context, call: Call, value: Value) -> None:
    run.values.write(call.result, value, call.fresh)


def _set_gated(run: Context, call: Call, value: Value, values: list[Value]) -> None:
    """What it holds; values: what it was made of."""
    _set(run, call, run.gate(call, values) if value is GATED else value)


def _work(run: Context, call: Call, adds: int, muls: int, values: list[Value] | None = None) -> None:
    """Element-wise work in the row of the running module, and the words that it moves. Index arithmetic is none.

    values: of the first arguments, where they are known already.
    """
    out = call.result
    words, bits = out.numel(), 0
    for index, operand in enumerate(call.args):
        if isinstance(operand, Tensor):
            if (run.values.of(operand) if values is None else values[index]).is_spikes:
                bits += operand.numel()
            else:
                words += operand.numel()
    if out.is_floating_point() or out.is_complex():
        counts = run.names.frames[-1].rest.counts
        counts["adds"] += adds
        counts["muls"] += muls
        counts["activation_words"] += words
        counts["spike_bits"] += bits


# What moves values, and what makes them


def _keep(run: Context, call: Call) -> None:
    """Views, copies, joins, places: what it returns holds what it read."""
    first = call.args[0]
    if isinstance(first, Tensor):
        if call.result.untyped_storage()._cdata != first.untyped_storage()._cdata:
            _set(run, call, run.values.of(first))
        return
    _set(run, call, joined([run.values.of(tensor) for tensor in _tensors(first)]))


def _copy_in(source: int, run: Context, call: Call) -> None:
    """Values written into a tensor, or beside what it holds."""
    value = value_of(run, call.args[source])
    if call.func._schema.name == "aten::copy_":
        return _set(run, call, value)
    _set(run, call, joined([run.values.of(call.args[0]), value]))


def _pad(run: Context, call: Call) -> None:
    fill = call.get(2, "value") or 0.0
    _set(run, call, joined([run.values.of(call.args[0]), constant(fill)]))


def _fill(number: float | None, place: int, run: Context, call: Call) -> None:
    given = call.get(place, "fill_value") if number is None else number
    _set(run, call, constant(given) if isinstance(given, (int, float)) else NUMBERS)


def _analog(run: Context, call: Call) -> None:
    for tensor in _tensors(call.args):
        run.values.of(tensor)
    _set(run, call, NUMBERS)


def nothing(run: Context, call: Call) -> None:
    """Shares what it read, says something about it, or makes nothing."""


# Element-wise operations


def _pointwise(name: str, run: Context, call: Call) -> None:
    adds, muls = cost.COST[name]
    size = call.result.numel()
    _work(run, call, adds * size, muls * size)
    _set(run, call, NUMBERS)


def _add(run: Context, call: Call) -> None:
    operands = (call.args[0], call.args[1])
    values = _operand_values(run, operands)
    alpha = call.get(2, "alpha", 1)
    size = call.result.numel()
    nothing = not all(isinstance(operand, Tensor) for operand in operands) and any(v.fill == 0.0 for v in values)
    _work(run, call, 0 if nothing else size, 0 if alpha in (1, -1) else size, values)
    subtracts = call.func._schema.name.removeprefix("aten::").rstrip("_") in ("sub", "rsub", "subtract")
    if subtracts:
        if call.func._schema.name == "aten::rsub":
            values = values[::-1]
        _set_gated(run, call, complement(*values) if alpha == 1 else NUMBERS, values)
    else:
        _set(run, call, added(values) if alpha == 1 else NUMBERS)


def _mul(run: Context, call: Call) -> None:
    values = _operand_values(run, (call.args[0], call.args[1]))
    size = call.result.numel()
    sign = not isinstance(call.args[1], Tensor) and call.args[1] in (1, -1)
    _work(run, call, 0, 0 if sign else size, values)
    _set_gated(run, call, multiplied(values), values)


def _div(run: Context, call: Call) -> None:
    values = _operand_values(run, (call.args[0], call.args[1]))
    size = call.result.numel()
    _work(run, call, 0, 0 if values[1].fill == 1.0 else size)
    _set(run, call, values[0] if values[1].fill == 1.0 else NUMBERS)


def _fused_add(run: Context, call: Call) -> None:
    """x + factor a b, or a / b."""
    size = call.result.numel()
    factor = call.kwargs.get("value", 1)
    _work(run, call, size, size if factor in (1, -1) else 2 * size)
    _set(run, call, NUMBERS)


def _compare(run: Context, call: Call) -> None:
    """A threshold was crossed or not: spikes, if somebody reads them. Equality is no threshold."""
    _set(run, call, run.fire(call))
    _comparison(run, call)  # counted last: whose spikes they are is told by what ran before


def _equal(run: Context, call: Call) -> None:
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


def _heaviside(run: Context, call: Call) -> None:
    at_zero = call.args[1]
    plain = at_zero.numel() == 1 and float(at_zero) in (0.0, 1.0)
    if plain:
        _compare(run, call)
    else:
        _pointwise("compare", run, call)


def _logic(run: Context, call: Call) -> None:
    """Gates of spikes by spikes are spikes."""
    out = call.result
    values = [run.values.of(tensor) for tensor in _tensors(call.args)]
    if all(value.is_spikes for value in values):
        run.names.frames[-1].rest.counts["adds"] += out.numel()
        _set_gated(run, call, GATED, values)
    else:
        _set(run, call, NUMBERS)


def _where(run: Context, call: Call) -> None:
    if len(call.args) < 3:
        return _analog(run, call)
    condition, yes, no = call.args
    values = [run.values.of(condition), *(_one_number(run, operand) for operand in (yes, no))]
    _set_gated(run, call, chosen(*values), values)


def _one_number(run: Context, operand: Any) -> Value:
    if isinstance(operand, Tensor) and operand.numel() == 1 and run.values.of(operand) is NUMBERS:
        return constant(float(operand))
    return value_of(run, operand)


def _masked_fill(run: Context, call: Call) -> None:
    _set(run, call, joined([run.values.of(call.args[0]), _one_number(run, call.args[2])]))


# Reductions, pools, norms


def _reduce(name: str, run: Context, call: Call) -> None:
    out, read = call.result, call.args[0]
    if name in ("max", "min") and len(call.args) > 1 and isinstance(call.args[1], Tensor):
        return _pointwise("maximum", run, call)
    _work(run, call, *cost.reduction(name, read.numel(), out.numel()))
    value = run.values.of(read)
    keeps = {"max": value, "min": value, "any": value, "all": value, "sum": summed(value), "cumsum": summed(value)}
    _set(run, call, keeps.get(name, NUMBERS))


def _max_pool(run: Context, call: Call) -> None:
    """n - 1 comparisons for each maximum, of the n values in its window."""
    out, read = call.result, call.args[0]
    _work(run, call, max(0, _window(call) - 1) * out.numel(), 0)
    _set(run, call, run.values.of(read))


def _avg_pool(run: Context, call: Call) -> None:
    out = call.result
    _work(run, call, max(0, _window(call) - 1) * out.numel(), out.numel())
    _set(run, call, NUMBERS)


def _window(call: Call) -> int:
    """Elements of a pool's window: its kernel, or what an adaptive one averages over."""
    read, out = call.args[0], call.result
    axes = int(call.func._schema.name.split("pool")[1][0])
    if "adaptive" in call.func._schema.name:
        return -(-prod(read.shape[-axes:]) // max(1, prod(out.shape[-axes:])))
    kernel = call.args[1]
    kernel = [kernel] if isinstance(kernel, int) else list(kernel)
    return prod(kernel * axes if len(kernel) == 1 else kernel)


def _softmax(run: Context, call: Call) -> None:
    read, axis = call.args[0], call.args[1]
    length = read.shape[axis] if read.dim() else 1
    _work(run, call, *cost.softmax(read.numel(), read.numel() // max(1, length)))
    _set(run, call, NUMBERS)


def _batch_norm(run: Context, call: Call) -> None:
    """At inference a factor and a summand per element; in training the statistics of the batch too."""
    read = call.args[0]
    training = bool(call.get(5, "training", False))
    adds, muls = cost.normalisation(read.numel(), read.shape[1], True) if training else (read.numel(), read.numel())
    _work(run, call, adds, muls)
    _set(run, call, NUMBERS)


def _norm(run: Context, call: Call) -> None:
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


def _sort(run: Context, call: Call) -> None:
    read = call.args[0]
    axis = -1 if "topk" in call.func._schema.name else call.get(1, "dim", -1)
    axis = axis if isinstance(axis, int) and not isinstance(axis, bool) else -1
    length = read.shape[axis] if read.dim() else 1
    _work(run, call, *cost.sorting(read.numel(), read.numel() // max(1, length)))
    _set(run, call, run.values.of(read))


def _embedding_bag(run: Context, call: Call) -> None:
    out, indices = call.result, call.args[1]
    _work(run, call, (indices.numel() - out.shape[0]) * out.shape[1], 0)
    _set(run, call, NUMBERS)


def _table() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}

    def give(rule: Rule, names: str) -> None:
        rules.update(dict.fromkeys(names.split(), rule))

    give(
        _keep,
        "_unsafe_view reshape flatten unflatten tensor_split cat concat concatenate stack hstack vstack dstack clone"
        " contiguous to _to_copy type_as float double half bfloat16 bool long int repeat repeat_interleave roll flip"
        " index index_select gather take take_along_dim masked_select im2col pixel_shuffle pixel_unshuffle"
        " channel_shuffle moveaxis swapdims broadcast_to broadcast_tensors lift_fresh lift_fresh_copy tril triu"
        " atleast_1d atleast_2d atleast_3d ravel rot90 upsample_nearest1d upsample_nearest2d upsample_nearest3d"
        " _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d reflection_pad1d"
        " reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d view_copy"
        " expand_copy permute_copy narrow_copy slice_copy select_copy squeeze_copy unsqueeze_copy _conj conj"
        " resolve_conj resolve_neg meshgrid cartesian_prod",
    )
    give(
        nothing,  # views: what they show is where it was
        "view expand expand_as permute transpose t squeeze unsqueeze slice select narrow split split_with_sizes chunk"
        " unbind unsafe_split unsafe_split_with_sizes unsafe_chunk detach alias unfold diagonal as_strided view_as"
        " _reshape_alias movedim swapaxes numpy_T real imag"
        " view_as_real view_as_complex",
    )
    give(_pad, "constant_pad_nd")
    for name, place in (
        ("copy", 1), ("index_put", 2), ("_index_put_impl", 2), ("index_copy", 3), ("scatter", 3), ("masked_scatter", 2),
        ("slice_scatter", 1), ("select_scatter", 1),
    ):  # fmt: skip
        rules[name] = partial(_copy_in, place)
    give(
        partial(_fill, 0.0, 0),
        "zeros zeros_like new_zeros zero empty empty_like new_empty empty_strided empty_permuted",
    )
    give(partial(_fill, 1.0, 0), "ones ones_like new_ones")
    give(partial(_fill, None, 1), "full full_like fill")
    give(partial(_fill, None, 2), "new_full")
    give(
        _analog,
        "rand randn randint rand_like randn_like randint_like randperm arange linspace logspace eye scalar_tensor"
        " embedding one_hot bernoulli normal uniform dropout native_dropout alpha_dropout feature_dropout diag"
        " diag_embed bucketize searchsorted histc bincount cumprod nonzero nonzero_numpy unique_dim _unique2 argsort"
        " isnan isinf isfinite tril_indices triu_indices multinomial complex polar fill_diagonal",
    )
    give(
        nothing,
        "item _local_scalar_dense is_nonzero size stride dim numel is_same_size equal resize_ set_ requires_grad_"
        " record_stream _assert_async _assert_tensor_metadata sym_size sym_stride sym_numel sym_storage_offset"
        " _has_compatible_shallow_copy_type is_pinned pin_memory retain_grad _version",
    )
    for name, names in {
        "abs": "abs absolute", "neg": "neg negative", "sign": "sign sgn", "floor": "floor", "ceil": "ceil",
        "round": "round", "trunc": "trunc fix", "frac": "frac", "relu": "relu", "clamp": "clamp clip hardtanh",
        "maximum": "maximum minimum fmax fmin clamp_min clamp_max threshold", "relu6": "relu6",
        "leaky_relu": "leaky_relu", "prelu": "prelu _prelu_kernel rrelu", "silu": "silu", "hardsigmoid": "hardsigmoid",
        "hardswish": "hardswish", "lerp": "lerp", "square": "square", "fmod": "fmod", "remainder": "remainder",
        "sigmoid": "sigmoid special_expit", "erf": "erf special_erf", "log_sigmoid": "log_sigmoid log_sigmoid_forward",
        "bilinear": "upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d", "bicubic": "upsample_bicubic2d",
        "linear_resize": "upsample_linear1d", "trilinear": "upsample_trilinear3d",
        **{name: name for name in (
            "tanh", "exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "erfc",
            "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "pow", "gelu", "softplus", "softsign", "elu",
            "selu", "celu", "mish", "atan2",
        )},
    }.items():  # fmt: skip
        give(partial(_pointwise, name), names)
    give(_add, "add sub rsub subtract")
    give(_mul, "mul multiply")
    give(_div, "div divide true_divide")
    give(_fused_add, "addcmul addcdiv")
    give(_compare, "gt ge lt le greater greater_equal less less_equal")
    give(_equal, "eq ne not_equal isclose")
    give(_heaviside, "heaviside")
    give(
        _logic,
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__"
        " __xor__ __iand__ __ior__ __ixor__",
    )
    give(_where, "where")
    give(_masked_fill, "masked_fill")
    for name, names in {
        "sum": "sum nansum", "mean": "mean", "max": "max amax", "min": "min amin", "prod": "prod", "var": "var",
        "std": "std", "argmax": "argmax", "argmin": "argmin", "any": "any", "all": "all", "cumsum": "cumsum",
        "norm": "norm linalg_vector_norm frobenius_norm", "logsumexp": "logsumexp",
    }.items():  # fmt: skip
        give(partial(_reduce, name), names)
    give(
        _max_pool,
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices"
        " adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    )
    give(_avg_pool, "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d")
    give(_avg_pool, "adaptive_avg_pool2d adaptive_avg_pool3d")
    give(_softmax, "softmax log_softmax _softmax _log_softmax")
    give(_batch_norm, "batch_norm native_batch_norm _batch_norm_impl_index cudnn_batch_norm")
    give(_norm, "layer_norm native_layer_norm group_norm native_group_norm instance_norm")
    give(_sort, "sort topk msort")
    give(_embedding_bag, "embedding_bag _embedding_bag _embedding_bag_forward_only")
    return rules | torch_products.RULES | torch_fused.RULES


RULES = _table()
