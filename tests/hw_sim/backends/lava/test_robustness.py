"""Whatever happens to a run, it ends, says why, and leaves no process and no shared memory behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from esdnet.command.errors import UserError, report_user_errors
from export.graph.nodes import Affine
from hw_sim.backends import simulator
from hw_sim.backends.lava import LavaError, LavaSession
from hw_sim.backends.lava.host import ProcessOutput
from hw_sim.backends.result import compare
from tests.hw_sim.backends.lava.networks import Dying, Raising, Sleeping, every_kind, image, relay

pytestmark = [
    pytest.mark.skipif(sys.version_info >= (3, 11), reason="lava-nc runs on Python 3.10 only"),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[4]
END_S = 5.0
HALF = Affine(name="half", inputs=("image",), scale=np.array(0.5), block="half")


def processes(session_id: int) -> list[int]:
    """Living processes of an engine: it leads a session of the operating system that all its processes belong to."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it ended meanwhile
        if int(session) == session_id and state != "Z":
            found.append(int(stat.parent.name))
    return found


def are_gone(session_id: int, within_s: float = 5.0) -> bool:
    """Whether no process of an engine lives on; one that was killed may take a moment to end."""
    until = time.monotonic() + within_s
    while processes(session_id) and time.monotonic() < until:
        time.sleep(0.05)
    return not processes(session_id)


def gone_within(session_id: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while processes(session_id):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def named_segments(session_id: int) -> set[str]:
    """Shared memory with a name that an engine's processes hold: what would stay if they were killed."""
    maps = "".join(Path(f"/proc/{process}/maps").read_text() for process in processes(session_id))
    return {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/dev/shm/" in line and "(deleted)" not in line}


def engine_of(session: LavaSession) -> int:
    return session._engine.process.pid


@pytest.mark.slow
def test_two_runs_at_once_and_the_failure_of_one():
    network, pixels = every_kind(), image(1)
    expected = simulator.run(network, pixels, precision="float64")
    broken = relay(HALF, Raising(name="broken", inputs=("half",), block="late"))
    with (
        LavaSession(network, (8, 8), precision="float64") as healthy,
        LavaSession(broken, (8, 8), precision="float64") as failing,
    ):
        assert len(processes(engine_of(healthy))) > len(network.neurons)
        began = time.monotonic()
        with pytest.raises(LavaError, match=r"^Lava process broken failed: ValueError: the cause$") as failure:
            failing.run(pixels)
        assert "Traceback" in str(failure.value.__cause__)
        assert time.monotonic() - began < 2 * END_S
        assert are_gone(engine_of(failing))
        with pytest.raises(LavaError, match="the Lava session has ended"):
            failing.run(pixels)
        assert compare(expected, healthy.run(pixels)).equal_spikes
        assert not named_segments(engine_of(healthy))
    assert are_gone(engine_of(healthy))


def test_a_failure_inside_lava_is_one_line_of_a_command(capsys):
    def fail() -> int:
        raise LavaError("Lava process broken failed: ValueError: the cause") from ProcessOutput("Traceback\n ...")

    assert report_user_errors(fail) == 1
    assert capsys.readouterr().err == "error: Lava process broken failed: ValueError: the cause\n"


@pytest.mark.slow
def test_a_process_that_is_killed_is_named():
    with LavaSession(relay(HALF, Dying(name="victim", inputs=("half",), block="late")), (8, 8)) as session:
        with pytest.raises(LavaError, match=r"^Lava process victim failed: it ended with signal SIGKILL$"):
            session.run(image(1))
        assert not processes(engine_of(session))


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended():
    with LavaSession(relay(HALF, Sleeping(name="late", inputs=("half",))), (8, 8)) as session:
        session.timeout_s = 1.0
        with pytest.raises(UserError, match="image 1 took longer than 1 s; allow more time or fewer pixels"):
            session.run(image(1))
        assert not processes(engine_of(session))


@pytest.mark.slow
def test_the_engine_is_killed():
    with LavaSession(relay(HALF), (8, 8)) as session:
        os.kill(engine_of(session), signal.SIGKILL)
        assert gone_within(engine_of(session), END_S)
        with pytest.raises(LavaError, match=r"^the Lava (engine ended unexpectedly: .*|session has ended)$"):
            session.run(image(1))


@pytest.mark.slow
def test_a_session_that_nobody_closes_ends_with_its_last_reference():
    session = LavaSession(relay(HALF), (8, 8))
    engine = engine_of(session)
    del session
    assert gone_within(engine, END_S)


HOST = """
import signal, sys, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs in the background with it ignored
from hw_sim.backends.lava import LavaSession
from tests.hw_sim.backends.lava.networks import Sleeping, image, relay
session = LavaSession(relay(Sleeping(name="late", inputs=("image",))), (8, 8))
print(session._engine.process.pid, flush=True)
session.run(image(1))
"""


@pytest.mark.parametrize(
    "signal_",
    [signal.SIGKILL, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGINT, signal.SIGTERM))],
    ids=lambda signal_: signal_.name,
)
def test_after_a_signal_nothing_is_left(signal_):
    host = subprocess.Popen(
        [sys.executable, "-c", HOST], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    with host:
        engine = int(host.stdout.readline())
        assert len(processes(engine)) > 3
        time.sleep(0.3)  # into the run
        assert not named_segments(engine)  # so that none can be left behind
        host.send_signal(signal_)
        assert gone_within(engine, END_S)
        assert host.wait(END_S) != 0


SMALL = """
import sys
from hw_sim.backends.lava import LavaSession
from esdnet.command.errors import UserError
from tests.hw_sim.backends.lava.networks import every_kind, image
try:
    with LavaSession(every_kind(), (8, 8)) as session:
        print("ran", session.run(image(1)).output.shape, "lava" in sys.modules)
except UserError as error:
    print(error)
"""


def with_shared_memory_of(kib: int) -> str:
    """What SMALL prints where /dev/shm has this many KiB (in a mount namespace of its own)."""
    mount = f"mount -t tmpfs -o size={kib}k tmpfs /dev/shm"
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$0" "$@"']
    done = subprocess.run([*command, sys.executable, "-c", SMALL], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_too_little_space_for_semaphores_is_said_and_what_is_asked_for_is_enough():
    """And the process that asks never imports Lava, whose import changes how multiprocessing starts processes."""
    try:
        said = with_shared_memory_of(64)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"this system lets no user mount a small /dev/shm: {error}")
    found = re.fullmatch(r"Lava: its semaphores need (\d+) KiB in /dev/shm, 64 KiB are free; free some or .*", said)
    assert found, said
    assert with_shared_memory_of(int(found[1])) == "ran (3, 8, 8) False"
