"""Training in two processes on one CPU: the losses and weights of one process, and one result."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import load_scan, save_npz
from ptycho.errors import BackendError, ConfigError
from ptycho.model.bundle import load_bundle
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.workflows.train import train

pytest.importorskip("lightning")

N = 64


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory):
    positions = raster_positions((90, 90), N, 6.0, jitter=1.0, rng=0)
    scan = simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    save_npz(scan, path)
    return path


def words_for(scan_path, folder, *more):
    """`ptycho train` with 15 groups in batches of 4, so that the last one is shared by nobody."""
    return [
        sys.executable, "-m", "ptycho", "train", str(scan_path), "--out", str(folder), "--n_filters_scale", "1",
        "--nepochs", "4", "--n_groups", "16", "--batch_size", "4", "--validation_fraction", "0.07",
        "--start_iterations", "2", "--device", "cpu", "--learning_rate", "1e-5", "--gradient_clip", "0.01", *more,
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(scan_path, folder, *more):
    """The command in a process of its own."""
    done = subprocess.run(words_for(scan_path, folder, *more), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done


def begun(words, folder):
    """The command in a process group of its own, once it has finished an epoch."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )
    while process.poll() is None and not (folder / "checkpoints" / "last.ckpt").is_file():
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    return process


@pytest.fixture(scope="module")
def alone(scan_path, tmp_path_factory):
    """What one process learns."""
    folder = tmp_path_factory.mktemp("one")
    run(scan_path, folder)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def together(scan_path, tmp_path_factory):
    """What two processes learn, and what they say."""
    folder = tmp_path_factory.mktemp("both")
    done = run(scan_path, folder, "--devices", "2", "--strategy", "ddp")
    return load_bundle(folder), done.stdout


def assert_the_same_training(one, two):
    assert set(one.history) == set(two.history)
    for name, values in one.history.items():
        np.testing.assert_allclose(two.history[name], values, rtol=1e-4)
    for name, values in one.params.items():
        # A step is 1e-5, small enough that rounding does not grow from one to the next. A gradient of about zero is
        # rounding, of which Adam would make a step, were it not clipped to far below Adam's epsilon of 1e-8.
        np.testing.assert_allclose(two.params[name], values, rtol=1e-5, atol=3e-7)


@pytest.mark.slow
def test_two_processes_are_one(alone, together):
    two, said = together
    assert said.count("saved") == 1
    assert_the_same_training(alone, two)
    assert json.dumps(two.config.devices) == "2"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_two_processes_with_a_share_of_the_weights_each_are_one(scan_path, alone, tmp_path):
    """Also where the training is told to end, and goes on from its checkpoint, which one process writes whole."""
    two = (tmp_path / "two", "--devices", "2", "--strategy", "fsdp")
    process = begun(words_for(scan_path, *two), tmp_path / "two")
    process.terminate()
    out, err = process.communicate(timeout=60)  # which any process that is left would keep open
    assert (process.returncode, out) == (143, "")
    (line,) = err.splitlines()
    assert line.startswith("ptycho: ended by SIGTERM; the checkpoints up to the last whole epoch are kept")
    assert line.endswith("and --resume goes on from there.")
    done = run(scan_path, *two, "--resume")
    assert done.stdout.count("saved") == 1
    assert_the_same_training(alone, load_bundle(tmp_path / "two"))


@pytest.mark.slow
def test_two_machines_are_one(scan_path, alone, tmp_path):
    """As torchrun starts them, one process on each; both are this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    words = words_for(scan_path, tmp_path / "two", "--strategy", "ddp")[1:]
    started = [
        subprocess.Popen(
            [*launcher, "--node_rank", str(rank), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for rank in (0, 1)
    ]
    (said, trouble), (other, more) = (process.communicate(timeout=300) for process in started)
    assert [process.returncode for process in started] == [0, 0], trouble + more
    assert (said.count("saved"), other) == (1, "")
    assert_the_same_training(alone, load_bundle(tmp_path / "two"))


def test_torchrun_with_other_processes_than_devices_is_refused(monkeypatch):
    settings = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    from ptycho_torch.training import Trainer

    with pytest.raises(ConfigError, match="torchrun started 2 processes on a machine: give --devices 2"):
        Trainer(TrainingConfig())
    assert Trainer(TrainingConfig(devices=2)).machines == 2


def test_a_batch_that_cannot_be_shared_is_refused(scan_path):
    config = TrainingConfig(
        model=ModelConfig(N=N, n_filters_scale=1, start_iterations=0), batch_size=5, devices=2, device="cpu"
    )
    with pytest.raises(ConfigError, match="batch_size: 5 groups cannot be shared equally by 2 devices"):
        train(load_scan(scan_path), config)


def test_shared_weights_are_not_compiled(scan_path, tmp_path):
    config = brief(devices=2, strategy="fsdp", compile=True)
    with pytest.raises(ConfigError, match="compile: a compiled network needs its weights whole, and strategy fsdp"):
        train(load_scan(scan_path), config, log_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def brief(**settings):
    """Half a second of training."""
    model = ModelConfig(N=N, n_filters_scale=1, start_iterations=0)
    return TrainingConfig(model=model, batch_size=4, nepochs=1, n_groups=4, device="cpu", **settings)


def test_an_unknown_strategy_is_refused(scan_path):
    with pytest.raises(
        BackendError, match=r"^strategy: 'shards' cannot be used here .*; choose one of auto, ddp, fsdp\."
    ):
        train(load_scan(scan_path), brief(strategy="shards"))


def test_a_program_that_hears_signals_itself_goes_on_doing_so():
    from ptycho_torch.processes import Others, ending_when_told

    heard, before = [], signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        with ending_when_told(Others()):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["SIGTERM"]


def test_an_interrupt_is_one_for_the_caller_too(scan_path):
    def interrupted(epoch, n_epochs, metrics):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(load_scan(scan_path), brief(), [interrupted])
    assert signal.getsignal(signal.SIGINT) is before


def test_one_process_needs_no_shards(scan_path):
    sharded, whole = (train(load_scan(scan_path), brief(strategy=name)) for name in ("fsdp", "auto"))
    for name, values in whole.params.items():
        np.testing.assert_array_equal(sharded.params[name], values)


def test_each_process_holds_its_share_of_the_weights(one_of_two_processes):
    import torch

    from ptycho_torch.model_manager import create_torch_model_with_gridsize

    module = create_torch_model_with_gridsize(2, N, {"n_filters_scale": 1})
    whole = {name: (values.shape, values.stride()) for name, values in module.state_dict().items()}
    module._device_mesh = one_of_two_processes
    module.configure_model()
    assert module.sharded
    assert {name: (values.shape, values.stride()) for name, values in module.state_dict().items()} == whole
    for values in module.parameters():
        assert values.to_local().numel() == -(-values.shape[0] // 2) * values[0].numel()
    assert module.weights(lambda: [type(v) for v in module.weights.parameters()]) == [torch.nn.Parameter] * len(whole)


@pytest.fixture
def one_of_two_processes():
    """The first of two, the other of which answers nothing."""
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield distributed.init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_other_processes_load_the_data(scan_path, alone, tmp_path):
    """Two workers make the same batches in the same order as the training process itself."""
    run(scan_path, tmp_path / "helped", "--num_workers", "2")
    helped = load_bundle(tmp_path / "helped")
    for name, values in alone.params.items():
        np.testing.assert_array_equal(helped.params[name], values)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs ps and kill")
def test_a_process_that_dies_ends_the_training_with_a_sentence(scan_path, together, tmp_path):
    """Its checkpoints are whole, and the training goes on from them."""
    two = (tmp_path / "two", "--devices", "2", "--strategy", "ddp")
    process = begun(words_for(scan_path, *two), tmp_path / "two")
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    (second,) = [int(pid) for pid, parent in map(str.split, listed.stdout.splitlines()) if int(parent) == process.pid]
    os.kill(second, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("ptycho: Process 1 of the training ended with code -9; the checkpoints up to the last whole")
    run(scan_path, *two, "--resume")
    whole, two = together[0], load_bundle(tmp_path / "two")
    assert whole.history == two.history
    for name, values in whole.params.items():
        np.testing.assert_array_equal(two.params[name], values)
