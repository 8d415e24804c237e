"""Settings of the model, the training and the inference, as plain dataclasses.

Field names and defaults are those of PtychoPINN where it has the field. A constructor refuses a value that its field
does not admit; ``ModelConfig(N=0)`` alone may wait for the pattern size. A configuration is checked again, and as a
whole, when it is used, by :func:`ptycho.config.validate`; an error names the field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ptycho.config.deprecated import former_names
from ptycho.config.files import load_config, load_yaml_config, save_config
from ptycho.config.legacy import dataclass_to_legacy_dict, update_legacy_dict
from ptycho.config.mapping import config_from_dict, config_to_dict
from ptycho.config.settings import documented, setting
from ptycho.config.validation import check_fields, validate

__all__ = [
    "InferenceConfig",
    "ModelConfig",
    "TrainingConfig",
    "config_from_dict",
    "config_to_dict",
    "dataclass_to_legacy_dict",
    "load_config",
    "load_yaml_config",
    "save_config",
    "update_legacy_dict",
    "validate",
]


@former_names({"estimate_passes": "start_iterations"}, files_warn=False)
@documented
@dataclass
class ModelConfig:
    """The network and the physics around it.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> try:
    ...     ptycho.ModelConfig(N=100)
    ... except ptycho.ConfigError as error:
    ...     print(error)
    N = 100 is not possible: expected one of 64, 128, 256.
    """

    N: int = setting(
        64, "side of a diffraction pattern and of an object patch", unit="pixels", choices=(64, 128, 256), placeholder=0
    )
    gridsize: int = setting(
        1, "side of the square group of neighbouring patches solved together (C = gridsize^2)", at_least=1
    )
    n_filters_scale: int = setting(
        2, "multiplies the number of convolution filters of every layer", at_least=1, at_most=64
    )
    model_type: str = setting(
        "pinn",
        "training mode: pinn uses the patterns alone, supervised uses given object patches",
        choices=("pinn", "supervised"),
    )
    architecture: str = setting("cnn", "name of the network from diffraction to patches in the generator registry")
    start_iterations: int | None = setting(
        20,
        "iterations of the rpie engine over the scan, whose object the network then corrects; 0 gives it only what "
        "each pattern alone says, none shows it the bare patterns as PtychoPINN does",
        at_least=0,
    )
    amp_activation: str = setting(
        "sigmoid", "last activation of the amplitude", choices=("sigmoid", "swish", "softplus", "relu")
    )
    object_big: bool = setting(True, "predict a separate patch for each pattern of a group instead of one for all")
    probe_big: bool = setting(True, "predict the patch outside its central half as well, where the probe is weak")
    probe_mask: bool = setting(False, "set the probe to 0 outside the disc of radius N/4")
    pad_object: bool = setting(True, "predict only the central half of a patch in detail and pad it to N")
    probe_scale: float = setting(4.0, "mean amplitude by which the probe is normalised inside the model", above=0)
    gaussian_smoothing_sigma: float = setting(
        0.0, "width of the Gaussian that smooths the exit wave; 0 is off", unit="pixels", at_least=0
    )

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass
class TrainingConfig:
    """One training: data, losses, sampling of the scan, optimiser, where and how it runs.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> config = ptycho.TrainingConfig(model=ptycho.ModelConfig(N=128), nepochs=20)
    >>> (config.model.N, config.nepochs)
    (128, 20)
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train_data_file: Path | None = setting(None, "scan to learn from")
    test_data_file: Path | None = setting(None, "scan to reconstruct, or to compute the validation loss on")
    output_dir: Path = setting(Path("training_outputs"), "folder for results, created if missing")
    start_model: Path | None = setting(
        None,
        "trained bundle, or its folder, to start from: the model's settings are then the bundle's, probe and scale the "
        "scan's; none starts from random weights",
    )

    nepochs: int = setting(50, "epochs: passes through all training groups", at_least=1)
    batch_size: int = setting(16, "groups per training step", at_least=1)
    n_groups: int = setting(512, "groups drawn from the scan for training", at_least=1)
    n_subsample: int | None = setting(None, "use only this many patterns of the scan; none uses all", at_least=1)
    subsample_seed: int | None = setting(None, "seed of that choice; none uses seed", at_least=0)
    training_patterns: int | None = setting(
        16384,
        "largest number of patterns used for training, unless n_groups is more; compact regions of a larger scan are "
        "used; none uses all",
        at_least=64,
    )
    sequential_sampling: bool = setting(False, "take the first groups of the scan instead of drawing them")
    neighbor_count: int = setting(4, "nearest neighbours among which a group is drawn", at_least=1)
    enable_oversampling: bool = setting(False, "draw several groups from one seed point (K choose C)")
    neighbor_pool_size: int | None = setting(
        None, "neighbours to choose from when oversampling; none uses neighbor_count", at_least=1
    )
    positions_provided: bool = setting(True, "use the scan's measured positions")

    nll_weight: float = setting(1.0, "weight of the Poisson loss on the patterns", at_least=0)
    mae_weight: float = setting(0.0, "weight of the mean absolute error of the pattern amplitudes", at_least=0)
    realspace_weight: float = setting(
        0.0, "weight of the loss on the object patches, where the scan has them", at_least=0
    )
    realspace_mae_weight: float = setting(0.0, "weight of the complex mean absolute error inside that loss", at_least=0)
    tv_weight: float = setting(
        0.0, "weight of the squared gradient of the object (sum of squared first differences)", at_least=0
    )
    nphotons: float = setting(
        1e9,
        "mean photons per pattern; sets the initial scale where the scan is not in counts",
        unit="photons",
        above=0,
    )
    refine_probe: bool = setting(True, "refine the probe in the start_iterations that precede the training")
    probe_trainable: bool = setting(False, "train the probe together with the network")
    intensity_scale_trainable: bool = setting(True, "learn the scale between prediction and measurement")

    learning_rate: float = setting(1e-3, "step size of the Adam optimiser", above=0)
    lr_schedule: str = setting(
        "constant", "schedule of the learning rate", choices=("constant", "cosine", "onecycle", "plateau")
    )
    gradient_clip: float | None = setting(None, "clip the gradient to this norm; none does not clip", above=0)
    early_stopping_patience: int | None = setting(
        None, "stop after this many epochs without a better validation loss; none never stops early", at_least=1
    )
    validation_fraction: float = setting(0.05, "fraction of the groups used for validation", at_least=0, at_most=0.9)

    backend: str = setting("pytorch", "array framework that trains")
    seed: int = setting(0, "seed of every random choice: weights, groups, batches", at_least=0)
    device: str = setting("auto", "where to compute: auto, cpu, cuda, cuda:1, mps")
    accelerator: str = setting("auto", "kind of hardware for a training over several devices")
    devices: int = setting(1, "number of devices to train on", at_least=1)
    strategy: str = setting("auto", "how several devices share the work, e.g. ddp; fsdp also distributes the weights")
    precision: str = setting("32", "arithmetic of the network: 32 or bf16 (mixed)", choices=("32", "bf16"))
    compile: bool = setting(
        False,
        "compile the network in PyTorch, which can be faster on a GPU; TensorFlow and JAX always do",
    )
    num_workers: int = setting(0, "processes that load data; 0 loads in the main process", at_least=0)
    checkpoint: bool = setting(True, "save the best and the last state during training")
    tensorboard: bool = setting(False, "also log for TensorBoard")

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass
class InferenceConfig:
    """One reconstruction of a scan with a trained bundle.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> ptycho.InferenceConfig(batch_size=8).batch_size
    8
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    model_path: Path | None = setting(None, "trained bundle wts.h5.zip, or the folder that holds it")
    test_data_file: Path | None = setting(None, "scan to reconstruct")
    output_dir: Path = setting(Path("inference_outputs"), "folder for results, created if missing")
    n_groups: int | None = setting(None, "groups to reconstruct; none uses every pattern", at_least=1)
    n_subsample: int | None = setting(None, "use only this many patterns of the scan; none uses all", at_least=1)
    subsample_seed: int | None = setting(None, "seed of that choice; none uses seed", at_least=0)
    neighbor_count: int = setting(4, "nearest neighbours among which a group is drawn", at_least=1)
    enable_oversampling: bool = setting(False, "draw several groups from one seed point (K choose C)")
    neighbor_pool_size: int | None = setting(
        None, "neighbours to choose from when oversampling; none uses neighbor_count", at_least=1
    )
    debug: bool = setting(False, "log more of what happens")
    batch_size: int = setting(32, "groups per step", at_least=1)
    backend: str = setting(
        "pytorch", "array framework that computes; 'ptycho reconstruct' takes the bundle's by default"
    )
    seed: int = setting(0, "seed of every random choice", at_least=0)
    device: str = setting("auto", "where to compute: auto, cpu, cuda, cuda:1, mps")

    def __post_init__(self) -> None:
        check_fields(self)
