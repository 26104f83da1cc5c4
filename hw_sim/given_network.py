"""--network F --input X.npy, as energy.py and verify.py take them: a network of the user's, and an array for it.

In: the options. Out: the Network, and the array as it was saved; a UserError in one line for what is neither.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.graph.network import Network

READING = ("input_kind", "dt", "reset", "semantics", "reset_interval", "reset_offset")


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """What a file of another's leaves open."""
    group = parser.add_argument_group("a network of yours (--network F --input X.npy)")
    group.add_argument("--input-kind", choices=("spike", "analog"), help="default: spikes if X is boolean")
    group.add_argument("--dt", type=float, metavar="SECONDS", help="of a .nir: length of a step (default: 1e-4)")
    group.add_argument("--reset", choices=("v_reset", "subtract"), help="of a .nir (default: v_reset)")
    group.add_argument("--semantics", help="of a .nir: whose arithmetic (default: nir; docs/semantics.md)")
    group.add_argument("--reset-interval", type=int, metavar="N", help="of a .net: steps between resets")
    group.add_argument("--reset-offset", type=int, metavar="N", help="of a .net with --reset-interval (default: 0)")


def check_no_reading_flags(args: argparse.Namespace) -> None:
    """UserError for an option of --input beside --image."""
    for name in READING:
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: is for --input, found --image")


def network_file(args: argparse.Namespace) -> Path:
    """The file that --network names."""
    if args.network is None:
        raise UserError("--input: needs --network, the network that it is for")
    file, colon, _ = args.network.rpartition(":")
    return Path(file if colon and file.endswith(".py") else args.network)


def open_given(args: argparse.Namespace) -> tuple[Network, NDArray[Any]]:
    """The network and the array."""
    network_file(args)
    if args.dt is not None and not 0 < args.dt < 1:
        raise UserError(f"--dt {args.dt}: expected seconds above 0, such as 1e-4")
    from export.open_network import Reading

    if args.reset_interval is not None and args.reset_interval < 1:
        raise UserError(f"--reset-interval {args.reset_interval}: expected at least 1 step")
    if args.reset_offset is not None and args.reset_interval is None:
        raise UserError("--reset-offset: needs --reset-interval")
    from export.open_network import open_with_input

    given = {name: value for name in READING[1:] if (value := getattr(args, name)) is not None}
    return open_with_input(args.network, args.input, args.input_kind, Reading(**given))
