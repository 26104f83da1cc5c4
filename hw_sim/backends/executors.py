"""One face for every executor: open it for a network, run tiles through it, close it.

In: the network (from a checkpoint or an exported file) and the backend's name. Out: Results, and what only it can know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esdnet.command.device import choose_exact_device
from esdnet.command.errors import UserError
from hw_sim.backends.executor import Executor, Source, check_lava_size

if TYPE_CHECKING:
    pass


def load_source(checkpoint: str | Path | None, network: Path | None) -> Source:
    """The network of a checkpoint, a file or the name of a bundled one, or one read back from an export."""
    if network is not None:
        from export.targets.loihi.folder import FORMAT, read_integer
        from export.targets.nir.read import read_network

        if FORMAT.is_export(network):
            integer = read_integer(network)
            return _giving_an_image(Source(str(network), integer.network, None, integer))
        return _giving_an_image(Source(str(network), read_network(network), None))
    from esdnet.networks.bundled import DEFAULT, checkpoint_label, find_checkpoint
    from esdnet.networks.checkpoint import load_network
    from export.readers.architectures import lower

    path = find_checkpoint(checkpoint or DEFAULT)
    model = load_network(path)
    return Source(checkpoint_label(path), lower(model, path.stem), model, checkpoint=path)


def _giving_an_image(source: Source) -> Source:
    """UserError for a network whose output is not one image like its input: there is nothing to save or to tile."""
    from export.graph.network import infer_shapes

    network = source.network
    side = 8 * network.size_multiple
    shapes = infer_shapes(network, side, side)
    taken, given = shapes[network.input.name], shapes[network.output.name]
    if given != taken:
        raise UserError(
            f"{source.label}: makes {given} (frames, channels, height, width) of an image {taken}, expected an image of"
            " the same size; run it in Python with hw_sim.backends.simulator"
        )
    return source


class Backend:
    """A backend for one network. `executor(size)` opens what that size needs, and keeps it open for the next image.

    Only Lava compiles for a size; a folder of equal images, or tiles, compile once. Use it in a `with`. keep_maps: its
    results tell where neurons fired (`Result.spike_maps`), whether or not they hold spikes.
    """

    def __init__(
        self, name: str, source: Source, precision: str, device: str, lava: dict[str, Any], keep_maps: bool = False
    ) -> None:
        self.name, self.source, self.precision, self.device, self.lava = name, source, precision, device, lava
        self.keep_maps = keep_maps
        self._stack = ExitStack()
        self._open: tuple[tuple[int, int], Executor] | None = None

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Find out what would fail for every image alike; UserError if something would."""
        if self.name == "lava":
            from hw_sim.backends.lava.host import check_available

            check_available()
        else:
            self.executor((0, 0))  # good for every size

    def executor(self, size: tuple[int, int]) -> Executor:
        """An executor for images or tiles of (height, width)."""
        if self._open is None or (self.name == "lava" and self._open[0] != size):
            self._stack.close()
            opened = _open_executor(
                self.name, self.source, self.precision, self.device, size, self.lava, self.keep_maps
            )
            self._open = (size, self._stack.enter_context(opened))
        return self._open[1]


@contextmanager
def _open_executor(
    backend: str, source: Source, precision: str, device: str, tile_size: tuple[int, int], lava: dict[str, Any],
    keep_maps: bool,
) -> Iterator[Executor]:  # fmt: skip
    """The executor of that name, ready for tiles of `tile_size` (height, width)."""
    if precision == "int8":
        from hw_sim.backends.integer_executors import open_integer_executor

        with open_integer_executor(backend, source, device, tile_size, lava, keep_maps) as executor:
            yield executor
    elif source.integer is not None:
        raise UserError(f"{source.label}: holds integers, which {precision} cannot run exactly; add --precision int8")
    elif backend == "simulator":
        from hw_sim.backends import simulator

        place = choose_exact_device(device)
        simulate = partial(simulator.run, source.network, device=place, keep_spikes=False, keep_maps=keep_maps)
        run = partial(simulate, precision=precision)
        yield Executor(run, run_part=lambda image, part: run(image, part=part))
    elif backend == "torch":
        from hw_sim.backends import torch_model

        if source.model is None:
            raise UserError("--backend torch runs checkpoints; with --network use --backend simulator or lava")
        place = choose_exact_device(device)
        model = partial(torch_model.run, source.model, source.network, precision=precision, device=place)
        yield Executor(model, run_part=lambda image, part: model(image, part=part))
    else:
        from hw_sim.backends.lava import LavaSession

        check_lava_size(tile_size)
        with LavaSession(source.network, tile_size, precision=precision, **lava) as session:
            yield Executor(session.run, session.facts, session.stream)
