"""Files that are none, or wrong: one line that names the node, what was found, what was expected, what to do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from esdnet.command.errors import UserError
from export.readers.nir import read_nir


def sound(path: Path) -> Path:
    """A file that can be read: a convolution, a neuron, a pool, a matrix and a recurrent layer, nested."""
    lif = dict(tau=np.full(4, 2e-4), r=np.ones(4), v_leak=np.zeros(4), v_threshold=np.ones(4))
    inner = {
        "input": nir.Input(np.array([4])), "lif": nir.LIF(**lif), "w": nir.Linear(np.eye(4)),
        "output": nir.Output(np.array([4])),
    }  # fmt: skip
    around = [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")]
    conv = nir.Conv2d(
        input_shape=(4, 4), weight=np.ones((3, 2, 3, 3)), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1,
        bias=np.zeros(3),
    )  # fmt: skip
    nodes = {
        "input": nir.Input(np.array([2, 4, 4])), "conv": conv,
        "if": nir.IF(r=np.ones((3, 4, 4)), v_threshold=np.ones((3, 4, 4))),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        "fc": nir.Affine(np.ones((4, 12)), np.zeros(4)), "rec": nir.NIRGraph(inner, around),
        "output": nir.Output(np.array([4])),
    }  # fmt: skip
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes, list(itertools.pairwise(names)), type_check=False))
    return path


def test_the_sound_file_is_read(tmp_path):
    assert len(read_nir(sound(tmp_path / "x.nir")).nodes) == 10


def refused(path: Path, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_nir(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert re.search(said, text), text


# --- not a NIR file ---------------------------------------------------------------------------------------------------


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layer"] = 1


def other_root(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["node/type"] = "LIF"


def truncated(path: Path) -> None:
    path.write_bytes(sound(path).read_bytes()[:3000])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "cannot be read as a NIR file: No such file or directory"),
        (Path.touch, "cannot be read as a NIR file: it is empty"),
        (lambda path: path.write_bytes(b"PK" * 500), "cannot be read as a NIR file: not HDF5, or damaged"),
        (Path.mkdir, "cannot be read as a NIR file: Is a directory"),
        (truncated, "cannot be read as a NIR file: not HDF5, or damaged"),
        (foreign, "not a NIR file: HDF5 that holds layer, expected 'node'"),
        (lambda path: h5py.File(path, "w").close(), "HDF5 that holds nothing, expected 'node'"),
        (other_root, "its root is of type LIF, expected NIRGraph"),
    ],
)  # fmt: skip
def test_no_nir_file(make: Callable[[Path], Any], said, tmp_path):
    path = tmp_path / "x.nir"
    make(path)
    refused(path, said)


# --- a node or an edge that is wrong ----------------------------------------------------------------------------------


def edit(path: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[f"node/nodes/{path}"]
        file[f"node/nodes/{path}"] = value

    return change


def remove(path: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(f"node/nodes/{path}")


def edges(change: Callable[[list[list[str]]], Any], path: str = "node/edges") -> Callable[[h5py.File], None]:
    def rewrite(file: h5py.File) -> None:
        pairs = [[end.decode() for end in edge] for edge in file[path][()]]
        change(pairs)
        del file[path]
        file[path] = pairs

    return rewrite


def rename(old: str, new: str) -> Callable[[h5py.File], None]:
    return lambda file: file.move(f"node/nodes/{old}", f"node/nodes/{new}")


def add(name: str, **fields: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for field, value in fields.items():
            file[f"node/nodes/{name}/{field}"] = value

    return change


INNER = "node/nodes/rec/edges"
WRONG = {
    "dangling edge": (
        edges(lambda e: e.append(["fc", "lif9"])),
        r"the graph: edge fc -> lif9: there is no node lif9, expected one of conv, fc, flat, .*; rename",
    ),
    "dangling, nested": (edges(lambda e: e.append(["w", "x"]), INNER), r"rec: edge w -> x: there is no node x"),
    "edge twice": (edges(lambda e: e.append(["fc", "rec"])), r"rec\.lif: reads fc 2 times, expected once"),
    "odd edges": (
        lambda file: (file.__delitem__("node/edges"), file.__setitem__("node/edges", np.ones((2, 2)))),
        r"the graph: edges of shape \(2, 2\), expected pairs of names",
    ),
    "no edges": (
        lambda file: file.__delitem__("node/edges"),
        r"conv \(Conv2d\): no edge from an Input leads to it, expected one",
    ),
    "no nodes": (lambda file: file.__delitem__("node/nodes"), r"the graph: no group 'nodes'"),
    "unknown type": (edit("if/type", "Izhikevich"), r"if \(Izhikevich\): NIR has no such primitive, expected"),
    "no type": (remove("if/type"), r"if: no text 'type', expected a node of NIR"),
    "a number for a type": (edit("if/type", 3), r"if: no text 'type'"),
    "missing field": (remove("if/r"), r"if \(IF\): no field 'r', expected r, v_threshold"),
    "unknown field": (add("if", refractory=1.0), r"if \(IF\): field 'refractory' is not known, expected r, v_reset"),
    "NaN": (
        edit("fc/weight", np.full((4, 12), np.nan)),
        r"fc \(Affine\): weight holds NaN or infinity, expected finite",
    ),
    "infinite, nested": (edit("rec/nodes/lif/tau", np.full(4, np.inf)), r"rec\.lif \(LIF\): tau holds NaN or infinity"),
    "text for numbers": (edit("fc/weight", "heavy"), r"fc \(Affine\): weight is the word 'heavy', expected numbers"),
    "empty array": (edit("fc/bias", np.empty(0)), r"fc \(Affine\): bias holds no numbers"),
    "complex": (edit("fc/bias", np.ones(4, complex)), r"fc \(Affine\): bias holds no numbers"),
    "wrong weight": (
        edit("fc/weight", np.ones((4, 11))),
        r"fc \(Affine\): reads \(12,\), but its weight \(4, 11\) takes \(11,\)",
    ),
    "batch of matrices": (edit("fc/weight", np.ones((1, 4, 12))), r"fc \(Affine\): weight of shape \(1, 4, 12\)"),
    "wrong bias": (edit("fc/bias", np.ones(3)), r"fc \(Affine\): bias of shape \(3,\), expected \(4,\)"),
    "wrong conv bias": (edit("conv/bias", np.ones(2)), r"conv \(Conv2d\): bias of shape \(2,\), expected \(3,\)"),
    "wrong channels": (
        edit("conv/weight", np.ones((3, 5, 3, 3))),
        r"conv \(Conv2d\): reads \(2, 4, 4\), expected 5 channels",
    ),
    "wrong kernel": (
        edit("conv/weight", np.ones((3, 2, 3))),
        r"conv \(Conv2d\): weight of shape \(3, 2, 3\), expected 4",
    ),
    "large kernel": (
        edit("conv/weight", np.ones((3, 2, 9, 9))),
        r"conv \(Conv2d\): reads \(4, 4\), expected at least its kernel \(9, 9\)",
    ),
    "wrong input_shape": (
        edit("conv/input_shape", [8, 8]),
        r"conv \(Conv2d\): reads \(2, 4, 4\), but its input_shape is \[8 8\]",
    ),
    "stride 0": (edit("conv/stride", [0, 1]), r"conv \(Conv2d\): stride is \[0, 1\], expected 2 whole numbers"),
    "half a padding": (edit("conv/padding", [0.5, 0]), r"conv \(Conv2d\): padding is \[0\.5, 0\.0\], expected 2 whole"),
    "padding by another word": (edit("conv/padding", "full"), r"conv \(Conv2d\): padding 'full' with stride"),
    "groups that do not fit": (edit("conv/groups", 2), r"conv \(Conv2d\): reads \(2, 4, 4\), expected 4 channels"),
    "pool of a vector": (edges(lambda e: e.extend([["fc", "pool"]])), r"pool \(SumPool2d\): reads .* expected"),
    "wide padding": (edit("pool/padding", [2, 2]), r"pool \(SumPool2d\): padding \(2, 2\) is more than half"),
    "flatten by halves": (edit("flat/start_dim", 2), r"flat \(Flatten\): start_dim 2 and end_dim -1 leave axes"),
    "flatten from beyond": (edit("flat/start_dim", 3), r"flat \(Flatten\): start_dim 3 and end_dim -1 leave axes"),
    "flatten backwards": (edit("flat/end_dim", -3), r"flat \(Flatten\): start_dim 0 and end_dim -3 leave axes"),
    "wrong neuron": (edit("if/r", np.ones((3, 2, 2))), r"if \(IF\): r of shape \(3, 2, 2\), but it reads \(3, 4, 4\)"),
    "negative tau": (edit("rec/nodes/lif/tau", -np.ones(4)), r"rec\.lif \(LIF\): tau has values of 0 or below"),
    "wrong output": (edit("output/shape", [5]), r"output \(Output\): reads \(4,\), but its shape is \(5,\)"),
    "four axes": (edit("input/shape", [1, 2, 4, 4]), r"input \(Input\): shape \[1, 2, 4, 4\], expected 1 to 3"),
    "negative side": (edit("input/shape", [2, -4, 4]), r"input \(Input\): shape \[2, -4, 4\]"),
    "no Input": (edit("input/type", "Output"), r"0 Input and 2 Output nodes, expected 1 Input and at least 1 Output"),
    "a node apart": (
        add("alone", type="Scale", scale=np.ones(4)),
        r"alone \(Scale\): no edge from an Input leads to it",
    ),
    "after the output": (edges(lambda e: e.append(["output", "fc"])), r"edge output -> fc: leads .* out of an Output"),
    "before the input": (edges(lambda e: e.append(["fc", "input"])), r"edge fc -> input: leads into an Input"),
    "shapes that do not add": (
        edges(lambda e: e.append(["input", "if"])),
        r"if \(IF\): reads conv of shape \(3, 4, 4\) and input of shape \(2, 4, 4\), expected the same",
    ),
    "two ports": (add("rec/nodes/more", type="Output", shape=[4]), r"rec \(NIRGraph\): 2 Output nodes, expected 1"),
    "a name that no edge has": (rename("if", "lif"), r"there is no node if"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name, tmp_path):
    change, said = WRONG[name]
    path = sound(tmp_path / "x.nir")
    with h5py.File(path, "r+") as file:
        change(file)
    refused(path, said)


@pytest.mark.parametrize("part", [b"SNOD", b"TREE", b"HEAP", b"GCOL"])
def test_a_damaged_part_of_hdf5(part, tmp_path):
    """HDF5's own marks overwritten: each is another exception in h5py. (Some single bits crash the library itself.)"""
    path = sound(tmp_path / "x.nir")
    path.write_bytes(path.read_bytes().replace(part, b"____"))
    refused(path, r"cannot be read as a NIR file: not HDF5, or damaged; write it again")


def test_a_name_of_a_node_and_of_a_nested_one(tmp_path):
    path = sound(tmp_path / "x.nir")
    with h5py.File(path, "r+") as file:
        rename("if", "rec.lif")(file)
        edges(lambda pairs: [edge.__setitem__(n, "rec.lif") for edge in pairs for n in (0, 1) if edge[n] == "if"])(file)
    refused(path, r"rec\.lif: the name is used twice, by a node and by one of a nested graph; rename one")


@pytest.mark.parametrize(("start", "end"), [(0, 2), (-3, -1), (1, -1), (1, 3)])
def test_flatten_of_all_axes(start, end, tmp_path):
    """The last two by exporters that counted a batch axis; here the matrix behind tells."""
    path = sound(tmp_path / "x.nir")
    with h5py.File(path, "r+") as file:
        edit("flat/start_dim", start)(file)
        edit("flat/end_dim", end)(file)
    assert len(read_nir(path).nodes) == 10


def test_what_other_versions_wrote_besides_is_passed_over(tmp_path):
    path = sound(tmp_path / "x.nir")
    with h5py.File(path, "r+") as file:
        add("if", input_type=np.array([3, 4, 4]), output_type=np.array([3, 4, 4]))(file)
        file["node/nodes/if/metadata/note"] = "trained on Tuesday"
    assert len(read_nir(path).nodes) == 10
