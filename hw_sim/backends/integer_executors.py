"""Executors in integers: the integer network of a source, made once, and the backends that run it bit for bit alike.

In: a Source (its graph is quantised on the calibration image that ships; a checkpoint's is kept beside it), a backend's
name. Out: an open Executor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from esdnet.command.device import choose_exact_device
from hw_sim.backends.executor import Executor, Source, check_lava_size

if TYPE_CHECKING:
    from export.integer.network import IntegerNetwork


@lru_cache(maxsize=1)
def integer_network(source: Source) -> IntegerNetwork:
    """The integers of a source: those of a Lava-DL export, or its graph quantised on the image that ships."""
    from esdnet.command.memory import keep_freed_memory
    from export.integer.cache import load_or_quantize
    from export.integer.calibrate import calibration_images
    from export.targets.loihi.rules import quantize_for_loihi

    keep_freed_memory()
    if source.integer is not None:
        return source.integer
    images = calibration_images(None, source.network.size_multiple)
    if source.checkpoint is None:
        return quantize_for_loihi(source.network, images)
    return load_or_quantize(source.checkpoint, source.network, images, quantize_for_loihi)


@contextmanager
def open_integer_executor(
    backend: str, source: Source, device: str, tile_size: tuple[int, int], lava: dict[str, Any], keep_maps: bool
) -> Iterator[Executor]:
    """`torch` and `simulator` are one executor in integers, on the CPU or a GPU: there is nothing left to differ in."""

    integer = integer_network(source)
    if backend == "lava":
        from hw_sim.backends.lava.integer_session import IntegerLavaSession

        check_lava_size(tile_size)
        with IntegerLavaSession(integer, tile_size, **lava) as session:
            yield Executor(session.run, session.facts)
    else:
        from hw_sim.backends import integer_simulator

        simulate = partial(integer_simulator.run, integer, keep_spikes=False, keep_maps=keep_maps)
        run = partial(simulate, device=choose_exact_device(device))
        yield Executor(run, run_part=lambda image, part: run(image, part=part))
