"""The worst case of every integer operation is proven when a network is built; whatever is refused says the remedy."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph.nodes import Concat, NetworkError, Node, Reduce, Resize
from export.integer import operations as ops
from export.integer.network import IntegerNetwork, largest_product
from export.integer.operations import Format, Operation, Rescale
from export.integer.quantize import quantize
from export.integer.run import divide, execute
from export.integer.store import decode_integer, encode_integer
from tests.random_networks import RANDOM, random_network

EXPORT = Path(__file__).parents[3] / "export"


@pytest.fixture(scope="module")
def integer() -> IntegerNetwork:
    return quantize(random_network(0), None)


def change(integer: IntegerNetwork, kind: type[Operation], **fields) -> IntegerNetwork:
    """The network with other fields in its operations of a kind."""
    changed = (dataclasses.replace(op, **fields) if isinstance(op, kind) else op for op in integer.operations)
    return IntegerNetwork(integer.network, tuple(changed))


def test_every_operation_has_a_bound():
    assert all(largest_product.dispatch(kind) is not largest_product.dispatch(Operation) for kind in kinds(Operation))

    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Strange(Operation):
        """An operation that nobody knows."""

    with pytest.raises(NetworkError, match=r"s: no bound for Strange; add one to export/integer/network\.py"):
        largest_product(Strange(node=Node(name="s"), output=Format(8, 1.0)), [Format(8, 1.0)])


def kinds(base: type[Operation]) -> list[type[Operation]]:
    return [kind for kind in base.__subclasses__() if kind.__module__ == base.__module__]


@pytest.mark.parametrize("kind", RANDOM)
def test_no_value_of_a_run_is_larger_than_its_bound(kind):
    """White, black and noise, under scales that fit nothing: the bound of each operation holds for what it gives."""
    from export.integer.run import run_integer

    network = RANDOM[kind](3, 3.0)
    integer = quantize(network, {node.name: 0.0 for node in network.nodes})
    seen = set()

    def observe(operation, inputs, value):
        sources = [integer.by_name[name].output for name in operation.node.inputs]
        assert int(value.to(torch.int64).abs().max()) <= largest_product(operation, sources), operation.name
        seen.add(type(operation))

    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for pixels in (np.zeros((3, 8, 8), np.uint8), np.full((3, 8, 8), 255, np.uint8), noise):
        run_integer(integer, pixels, observe)
    assert len(seen) >= 10


def test_bounds_by_hand():
    wide, narrow = Format(18, 1.0), Format(8, 1.0, signed=False)
    mean = ops.IntegerMean(node=Reduce(name="m", inputs=("x",)), output=Format(24, 1.0))
    assert largest_product(mean, [wide]) == 2**28 * (2**17 - 1)
    joined = ops.IntegerConcat(node=Concat(name="k", inputs=("x", "y")), output=wide, left=(0, 12))
    assert largest_product(joined, [wide, narrow]) == 255 << 12
    bilinear = ops.IntegerResize(node=Resize(name="r", inputs=("x",)), output=narrow)
    assert largest_product(bilinear, [narrow]) == (9 + 3 + 3 + 1) * 255 + 8


def test_sums_that_float64_cannot_hold_are_refused(integer):
    conv = next(op for op in integer.operations if isinstance(op, ops.IntegerConv) and op.rescale is not None)
    match = (
        r"conv\d+ \(conv\): sums up to \d+, float64 holds integers below 2\^53; make the layer narrower, or its bias"
    )
    with pytest.raises(NetworkError, match=match):
        largest_product(dataclasses.replace(conv, bias=np.full(len(conv.weight), ops.EXACT)), [Format(8, 1.0)])


def test_products_that_64_bits_cannot_hold_are_refused(integer):
    match = r"mul\d+ \(mul\): products up to \d+, 64 bits hold less than 2\^63; .* train on, or scale its weights"
    with pytest.raises(NetworkError, match=match):
        change(integer, ops.IntegerMul, rescale=Rescale(np.array(2**40), 0))


def test_the_sum_of_a_mean_is_part_of_the_proof(integer):
    """2^28 values of 36 bits with sign: 2^63 - 2^28 is the most that 64 bits hold; 37 bits are refused."""
    node = Reduce(name="m", inputs=("x",))
    mean = ops.IntegerMean(node=node, output=Format(24, 1.0))
    assert largest_product(mean, [Format(36, 1.0)]) < 2**63
    assert largest_product(mean, [Format(37, 1.0)]) >= 2**63
    source = next(op for op in integer.operations if isinstance(op, ops.IntegerMean)).node.inputs[0]
    operations = tuple(
        dataclasses.replace(op, output=Format(37, 1.0)) if op.name == source else op for op in integer.operations
    )
    with pytest.raises(NetworkError, match=r"reduce\d+ \(reduce\): products up to \d+, 64 bits hold less"):
        IntegerNetwork(integer.network, operations)


@settings(max_examples=300, deadline=None)
@given(count=st.integers(1, ops.MEAN_LIMIT), share=st.floats(-1.0, 1.0), bits=st.integers(2, 36))
def test_a_mean_is_exact_for_as_many_and_as_large_values_as_are_allowed(count, share, bits):
    """Against Python's integers, which have no end."""
    total = int(share * (2 ** (bits - 1) - 1) * count)
    multiplier, shift = ops.reciprocal(count)
    expected = (total * multiplier + 2 ** (shift - 1)) >> shift
    assert divide(torch.tensor([total]), count).item() == expected
    assert abs(expected / 2.0**6 - total / count) <= 2.0**-6 + abs(total / count) * 2.0**-15


def test_a_mean_of_too_many_values_is_refused():
    with pytest.raises(NetworkError, match=r"mean of 268435457 values: expected 1 to 2\^28; run the image in tiles"):
        ops.reciprocal(ops.MEAN_LIMIT + 1)


def test_operations_of_other_nodes_are_refused(integer):
    with pytest.raises(NetworkError, match=r"random0: the integer operations are not those .*; quantise it again"):
        IntegerNetwork(integer.network, integer.operations[:-1])


def test_an_operation_without_a_rule_is_refused():
    operation = ops.IntegerNeuron.__base__(node=Node(name="odd"), output=Format(8, 1.0))
    with pytest.raises(NetworkError, match=r"odd: no rule for Operation; add one to export/integer/run\.py"):
        execute(operation, [], 1)


def test_an_export_of_a_newer_program_is_refused(integer):
    record, arrays = encode_integer(integer)
    record["operations"][0]["operation"] = "IntegerWavelet"
    with pytest.raises(Exception, match=r"unknown operation 'IntegerWavelet'; a newer program wrote this .*: use that"):
        decode_integer(record, arrays)


def refusals(path: Path) -> list[tuple[str, str]]:
    """Where a file raises something or lists a violation, and what it says."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        said = None
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            said = node.exc.args[0]
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.JoinedStr):
            said = node.value
        if said is not None:
            found.append((f"{path.name}:{node.lineno}", ast.unparse(said)))
    return found


def test_every_refusal_says_the_remedy():
    """What was found, then '; ', then what to do."""
    files = [*EXPORT.glob("integer/*.py"), EXPORT / "targets" / "loihi" / "rules.py"]
    said = [refusal for path in files for refusal in refusals(path)]
    assert len(said) >= 20
    assert [place for place, text in said if "; " not in text] == []
