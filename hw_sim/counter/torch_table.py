"""Which rule counts which of torch's operations, by name; in-place ones have their plain one's.

An operation without a rule is taken apart, if torch says what it is made of; else it is listed as unknown.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from hw_sim.counter import torch_fused, torch_products
from hw_sim.counter import torch_rules as rules
from hw_sim.counter.torch_context import Call, Context
from hw_sim.counter.torch_rules import Rule, nothing, tensors
from hw_sim.counter.values import NUMBERS


def find_rule(func: Any) -> Rule | None:
    """The rule of an operation; None: take it apart. What nobody knows is listed."""
    namespace, _, name = func._schema.name.partition("::")
    if func._schema.overload_name == "padding":  # of a convolution, by name: torch makes numbers of it
        return None
    rule = RULES.get(name) or RULES.get(name.removesuffix("_")) if namespace == "aten" else None
    if rule is not None:
        return rule
    return None if is_composite(func) else list_unknown


def is_composite(func: Any) -> bool:
    """Whether torch makes it of other operations."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def list_unknown(run: Context, call: Call) -> None:
    """What has no rule; and whatever is done to sparse or nested tensors, whose elements are not all there."""
    odd = any(value.is_sparse or value.is_nested for value in tensors((*call.args, call.result)))
    name = f"{call.func._schema.name}{' (sparse or nested)' if odd else ''}"
    run.ledger.list_unknown(name, sum(out.numel() for out in tensors(call.out)))
    for out in tensors(call.out):
        run.values.write(out, NUMBERS)


GROUPS: list[tuple[Rule, str]] = [
    (
        rules.keep,
        "_unsafe_view reshape flatten unflatten tensor_split cat concat concatenate stack hstack vstack dstack clone"
        " contiguous to _to_copy type_as float double half bfloat16 bool long int repeat repeat_interleave roll flip"
        " index index_select gather take take_along_dim masked_select im2col pixel_shuffle pixel_unshuffle"
        " channel_shuffle moveaxis swapdims broadcast_to broadcast_tensors lift_fresh lift_fresh_copy tril triu"
        " atleast_1d atleast_2d atleast_3d ravel rot90 upsample_nearest1d upsample_nearest2d upsample_nearest3d"
        " _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d reflection_pad1d"
        " reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d view_copy"
        " expand_copy permute_copy narrow_copy slice_copy select_copy squeeze_copy unsqueeze_copy _conj conj"
        " resolve_conj resolve_neg meshgrid cartesian_prod",
    ),
    (
        nothing,  # views: what they show is where it was
        "view expand expand_as permute transpose t squeeze unsqueeze slice select narrow split split_with_sizes chunk"
        " unbind unsafe_split unsafe_split_with_sizes unsafe_chunk detach alias unfold diagonal as_strided view_as"
        " _reshape_alias movedim swapaxes numpy_T real imag view_as_real view_as_complex",
    ),
    (
        nothing,  # says something about a tensor
        "item _local_scalar_dense is_nonzero size stride dim numel is_same_size equal resize_ set_ requires_grad_"
        " record_stream _assert_async _assert_tensor_metadata sym_size sym_stride sym_numel sym_storage_offset"
        " _has_compatible_shallow_copy_type is_pinned pin_memory retain_grad _version",
    ),
    (rules.pad, "constant_pad_nd"),
    (partial(rules.copy_in, 1), "copy slice_scatter select_scatter"),
    (partial(rules.copy_in, 2), "index_put _index_put_impl masked_scatter"),
    (partial(rules.copy_in, 3), "index_copy scatter"),
    (partial(rules.add_in, 3), "scatter_add index_add"),
    (
        partial(rules.fill, 0.0, 0),  # nothing was written yet
        "zeros zeros_like new_zeros zero empty empty_like new_empty empty_strided empty_permuted",
    ),
    (partial(rules.fill, 1.0, 0), "ones ones_like new_ones"),
    (partial(rules.fill, None, 1), "full full_like fill"),
    (partial(rules.fill, None, 2), "new_full"),
    (
        rules.analog,  # constants, look-ups and random values
        "rand randn randint rand_like randn_like randint_like randperm arange linspace logspace eye scalar_tensor"
        " embedding one_hot bernoulli normal uniform exponential multinomial diag diag_embed nonzero nonzero_numpy"
        " isnan isinf isfinite tril_indices triu_indices fill_diagonal",
    ),
    (rules.dropout, "dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout"),
    (rules.add, "add"),
    (partial(rules.subtract, False), "sub subtract"),
    (partial(rules.subtract, True), "rsub"),
    (rules.mul, "mul multiply"),
    (rules.div, "div divide true_divide"),
    (rules.power, "pow"),
    (rules.fused_add, "addcmul addcdiv"),
    (rules.compare, "gt ge lt le greater greater_equal less less_equal"),
    (rules.equal, "eq ne not_equal isclose"),
    (rules.heaviside, "heaviside"),
    (
        rules.logic,
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__"
        " __xor__ __iand__ __ior__ __ixor__",
    ),
    (rules.where, "where"),
    (rules.masked_fill, "masked_fill"),
    (
        partial(rules.pool, False),
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices"
        " adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    ),
    (
        partial(rules.pool, True),
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
        " _adaptive_avg_pool2d _adaptive_avg_pool3d",
    ),
    (rules.softmax, "softmax log_softmax _softmax _log_softmax"),
    (rules.batch_norm, "batch_norm native_batch_norm _batch_norm_impl_index cudnn_batch_norm"),
    (rules.norm, "layer_norm native_layer_norm group_norm native_group_norm instance_norm"),
    (rules.sort, "sort topk msort argsort"),
    (rules.embedding_bag, "embedding_bag _embedding_bag _embedding_bag_forward_only"),
]
POINTWISE = {  # a price of elementwise.py -> operations
    "abs": "abs absolute", "neg": "neg negative", "sign": "sign sgn", "floor": "floor", "ceil": "ceil",
    "round": "round", "trunc": "trunc fix", "frac": "frac", "relu": "relu", "clamp": "clamp clip hardtanh",
    "maximum": "maximum minimum fmax fmin clamp_min clamp_max threshold", "relu6": "relu6",
    "leaky_relu": "leaky_relu", "prelu": "prelu _prelu_kernel rrelu", "silu": "silu", "hardsigmoid": "hardsigmoid",
    "hardswish": "hardswish", "lerp": "lerp", "square": "square cumprod", "fmod": "fmod", "remainder": "remainder",
    "sigmoid": "sigmoid special_expit", "erf": "erf special_erf", "log_sigmoid": "log_sigmoid log_sigmoid_forward",
    "bilinear": "upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d", "bicubic": "upsample_bicubic2d",
    "linear_resize": "upsample_linear1d", "trilinear": "upsample_trilinear3d",
    **{name: name for name in (
        "tanh", "exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "erfc", "sin",
        "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "gelu", "softplus", "softsign", "elu", "selu", "celu",
        "mish", "atan2",
    )},
}  # fmt: skip
REDUCTIONS = {
    "sum": "sum nansum", "mean": "mean", "max": "max amax", "min": "min amin", "prod": "prod", "var": "var",
    "std": "std", "argmax": "argmax", "argmin": "argmin", "any": "any", "all": "all", "cumsum": "cumsum",
    "norm": "norm linalg_vector_norm frobenius_norm", "logsumexp": "logsumexp",
}  # fmt: skip
RULES: dict[str, Rule] = {
    **{name: rule for rule, names in GROUPS for name in names.split()},
    **{name: partial(rules.pointwise, price) for price, names in POINTWISE.items() for name in names.split()},
    **{name: partial(rules.reduce, kind) for kind, names in REDUCTIONS.items() for name in names.split()},
    **torch_products.RULES,
    **torch_fused.RULES,
}
