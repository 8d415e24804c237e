"""The PyTorch side without PyTorch: everything imports, and what needs it says what to install."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "pytorch_lightning", "tensorflow", "keras", "jax"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
sys.path[:0] = [".", "shims"]
"""


def run(code: str, prelude: str = BLOCKED) -> str:
    script = prelude + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTS = """
    import ptycho_torch, ptycho_torch.workflows
    from ptycho_torch.api.base_api import (
        ConfigManager, DataloaderFormats, InferenceEngine, PtychoDataLoader, PtychoModel, Trainer,
    )
    from ptycho_torch.workflows.components import (
        _ensure_container, _reassemble_cdi_image_torch, _train_with_lightning,
        load_inference_bundle_torch, run_cdi_example_torch, train_cdi_model_torch,
    )
    from ptycho_torch.raw_data_bridge import RawDataTorch
    from ptycho_torch.data_container_bridge import PtychoDataContainerTorch
    from ptycho_torch.model_manager import create_torch_model_with_gridsize, load_torch_bundle, save_torch_bundle
    from ptycho_torch.config_params import (
        TORCH_AVAILABLE, DataConfig, DatagenConfig, InferenceConfig, ModelConfig, TrainingConfig,
    )
    from ptycho_torch.config_bridge import to_inference_config, to_model_config, to_training_config
"""


@pytest.mark.parametrize(
    "prelude", [BLOCKED, "import sys\nsys.modules['torch'] = None\nsys.path[:0] = ['.', 'shims']\n"]
)
def test_all_names_import(prelude):
    assert run(IMPORTS + "    print(TORCH_AVAILABLE, DataConfig().N)", prelude).split() == ["False", "64"]


def test_importing_them_imports_no_framework():
    code = IMPORTS + "    print({'torch', 'lightning', 'tensorflow', 'jax'} & set(sys.modules))"
    assert run(code, "import sys\nsys.path[:0] = ['.', 'shims']\n").strip() == "set()"


def test_what_needs_torch_says_what_to_install():
    code = (
        IMPORTS
        + """
    import numpy as np
    from ptycho.config import ModelConfig as Ours, TrainingConfig as Training
    from ptycho.errors import BackendError

    rng = np.random.default_rng(0)
    xy = rng.uniform(32, 64, (2, 6))
    raw = RawDataTorch(*xy, rng.poisson(3, (6, 64, 64)), np.ones((64, 64), complex), np.zeros(6, int))
    grouped = raw.generate_grouped_data(64, nsamples=4, gridsize=1)
    print(grouped["X_full"].shape)
    config = Training(model=Ours(), output_dir="never")
    calls = {
        "run_cdi_example_torch": lambda: run_cdi_example_torch(raw, None, config),
        "train_cdi_model_torch": lambda: train_cdi_model_torch(raw, None, config),
        "_reassemble_cdi_image_torch": lambda: _reassemble_cdi_image_torch(raw, config),
        "_train_with_lightning": lambda: _train_with_lightning(raw, None, config),
        "_ensure_container": lambda: _ensure_container(raw, config),
        "PtychoDataContainerTorch": lambda: PtychoDataContainerTorch(grouped, None),
        "create_torch_model_with_gridsize": lambda: create_torch_model_with_gridsize(1, 64),
    }
    for name, call in calls.items():
        try:
            call()
        except BackendError as error:
            print(name, str(error).endswith("install it with: pip install ptychopinn[torch]"))
    """
    )
    first, *others = run(code).splitlines()
    assert first == "(4, 64, 64, 1)"
    assert len(others) == 7
    assert all(line.endswith(" True") for line in others)
    assert not (ROOT / "never").exists()


def test_a_bundle_loads_and_predicts_without_the_framework_that_wrote_it(trained, tmp_path):
    from ptycho.model.bundle import save_bundle

    save_bundle(trained[1]["bundle"], tmp_path)
    code = f"""
    import numpy as np
    from ptycho.errors import BackendError
    from ptycho_torch.workflows.components import load_inference_bundle_torch
    from ptycho.workflows.components import load_inference_bundle

    model, settings = load_inference_bundle({str(tmp_path)!r})
    model.backend = "numpy"
    print(model.predict([np.ones((1, 64, 64, 1)), np.zeros((1, 1, 2, 1))]).shape, model.manifest["backend"])
    model, settings = load_inference_bundle_torch({str(tmp_path)!r})
    try:
        model.predict([np.ones((1, 64, 64, 1)), np.zeros((1, 1, 2, 1))])
    except BackendError as error:
        print("ptychopinn[torch]" in str(error))
    """
    assert run(code).splitlines() == ["(1, 64, 64, 1) pytorch", "True"]
