"""The settings of PtychoPINN's PyTorch version; `ptycho.config.bridge` converts them to this library's.

Every field that PtychoPINN or ptychodus sets is accepted. A field made by :func:`unused` has no effect here, and the
bridge names it in a warning where it differs from its default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = [
    "ARCHITECTURE",
    "CLASSES",
    "DataConfig",
    "DatagenConfig",
    "InferenceConfig",
    "ModelConfig",
    "TrainingConfig",
    "unused",
    "without_effect",
]


_UNUSED = MappingProxyType({"unused": True})

ARCHITECTURE = MappingProxyType(
    {
        "data_config": ("N", "grid_size", "probe_scale"),
        "model_config": (
            *("mode", "architecture", "n_filters_scale", "amp_activation", "object_big", "probe_big"),
            *("probe_mask", "probe_mask_tensor", "pad_object", "gaussian_smoothing_sigma"),
        ),
    }
)
"""The settings that a trained model cannot be used without, or with another value of."""


def unused(default: Any, *same: Any) -> Any:
    """Declare a field that is accepted and changes nothing; ``same`` are further values that ask for what is done."""
    return field(default=default, metadata={**_UNUSED, "same": same})


def without_effect(config: Any) -> list[str]:
    """Names of the fields that were set to something and change nothing."""
    found = []
    for item in dataclasses.fields(config):
        if item.metadata.get("unused"):
            default = [] if item.default is dataclasses.MISSING else item.default
            if getattr(config, item.name) not in (default, *item.metadata.get("same", ())):
                found.append(item.name)
    return found


@dataclass
class DataConfig:
    """Patterns, their groups and their scale."""

    nphotons: float = 1e5
    N: int = 64
    K: int = 6
    grid_size: tuple[int, int] = (2, 2)
    subsample_seed: int | None = None
    probe_scale: float = 4.0
    C: int = 4  # the channels follow from grid_size
    scale_contract_version: str = unused("ci_intensity_v2")
    measurement_domain: str = unused("count_intensity")
    K_quadrant: int = unused(30)
    n_subsample: int = unused(7)
    neighbor_function: str = unused("Nearest")
    min_neighbor_distance: float = unused(0.0)
    max_neighbor_distance: float = unused(3.0)
    scan_pattern: str = unused("Isotropic")
    normalize: str = unused("Batch")
    probe_normalize: bool = unused(True)
    probe_ramp_removal: bool = unused(False)
    data_scaling: str = unused("Parseval")
    phase_subtraction: bool = unused(True)
    x_bounds: tuple[float, float] = unused((0.1, 0.9))
    y_bounds: tuple[float, float] = unused((0.1, 0.9))


@dataclass
class ModelConfig:
    """The network and the physics around it."""

    mode: str = "Unsupervised"
    architecture: str = "cnn"
    intensity_scale_trainable: bool = False
    n_filters_scale: int = 2
    amp_activation: str = "silu"
    probe_mask: Any = False
    probe_mask_tensor: Any = None
    object_big: bool = True
    probe_big: bool = True
    pad_object: bool = True
    gaussian_smoothing_sigma: float = 0.0
    loss_function: str = "Poisson"
    C_model: int = 4  # these three channel counts follow from grid_size
    C_forward: int = 4
    decoder_last_amp_channels: int = 1
    intensity_scale: float = unused(10000.0)
    max_position_jitter: int = unused(10)
    num_datasets: int = unused(1)
    offset: int = unused(6)
    probe_mask_sigma: float = unused(1.0)
    probe_mask_diameter: float | None = unused(None)
    fno_modes: int = unused(12)
    fno_width: int = unused(32)
    fno_blocks: int = unused(4)
    fno_cnn_blocks: int = unused(2)
    fno_input_transform: str = unused("none")
    learned_input_channels: int = unused(1)
    max_hidden_channels: int | None = unused(None)
    resnet_width: int | None = unused(None)
    spectral_bottleneck_blocks: int = unused(6)
    spectral_bottleneck_modes: int = unused(12)
    spectral_bottleneck_share_weights: bool = unused(True)
    spectral_bottleneck_gate_init: float = unused(0.1)
    spectral_bottleneck_gate_mode: str = unused("shared")
    generator_output_mode: str = unused("real_imag")
    cnn_output_mode: str = unused("amp_phase")
    use_shared_decoder: bool = unused(False)
    use_legacy_decoder_channel_override: bool = unused(False)
    batch_norm: bool = unused(False)
    edge_pad: int = unused(10)
    decoder_last_c_outer_fraction: float = unused(0.125)
    eca_encoder: bool = unused(False)
    cbam_encoder: bool = unused(True)
    cbam_bottleneck: bool = unused(False)
    cbam_decoder: bool = unused(False)
    eca_decoder: bool = unused(False)
    spatial_decoder: bool = unused(False)
    decoder_spatial_kernel: int = unused(7)
    training_patch_weighting: str = unused("central_mask")
    physics_forward_mode: str = unused("amplitude")
    rect_s1s2_trainable: bool = unused(True)
    rect_s1s2_init: str = unused("ones")
    amplitude_physics_gain: float = unused(1.0)
    amp_loss: str | None = unused(None)
    phase_loss: str | None = unused(None)
    amp_loss_coeff: float = unused(1.0)
    phase_loss_coeff: float = unused(1.0)
    probe_reference_coeff: float = unused(0.0)
    amplitude_variance_loss: bool = unused(False)
    amplitude_variance_coeff: float = unused(0.01)


@dataclass
class TrainingConfig:
    """The training and where it runs."""

    nll: bool = True
    torch_loss_mode: str = "poisson"
    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 1e-3
    scheduler: str = "Default"
    gradient_clip_val: float | None = None
    device: str = "cuda"
    n_devices: int | str = 1
    strategy: str | None = "ddp"
    train_data_file: str | Path | None = None
    test_data_file: str | Path | None = None
    output_dir: str | Path = "training_outputs"
    n_groups: int | None = None
    training_directories: list[str] = field(default_factory=list, metadata=_UNUSED)
    framework: str = unused("Lightning")
    orchestrator: str = unused("Mlflow", "Lightning")
    epochs_fine_tune: int = unused(0)
    fine_tune_gamma: float = unused(0.1)
    lr_warmup_epochs: int = unused(0)
    lr_min_ratio: float = unused(0.1)
    warmup_epochs: int = unused(0)
    min_lr_ratio: float = unused(0.1)
    plateau_factor: float = unused(0.5)
    plateau_patience: int = unused(2)
    plateau_min_lr: float = unused(5e-5)
    plateau_threshold: float = unused(0.0)
    num_workers: int = unused(4)
    accum_steps: int = unused(1)
    gradient_clip_algorithm: str = unused("norm")
    optimizer: str = unused("adam")
    momentum: float = unused(0.9)
    weight_decay: float = unused(0.0)
    adam_beta1: float = unused(0.9)
    adam_beta2: float = unused(0.999)
    log_grad_norm: bool = unused(False)
    grad_norm_log_freq: int = unused(1)
    stage_1_epochs: int = unused(0)
    stage_2_epochs: int = unused(0)
    stage_3_epochs: int = unused(0)
    physics_weight_schedule: str = unused("cosine")
    stage_3_lr_factor: float = unused(0.1)
    torch_mae_pred_l2_match_target: bool = unused(False)
    experiment_name: str = unused("Synthetic_Runs")
    notes: str = unused("")
    model_name: str = unused("PtychoPINNv2")
    enable_staged_finetuning: bool = unused(False)
    finetune_stage1_epochs: int = unused(7)
    finetune_stage2_epochs: int = unused(7)
    finetune_stage3_epochs: int = unused(5)
    finetune_stage1_lr_decoder: float = unused(0.1)
    finetune_stage2_lr_encoder_top: float = unused(0.01)
    finetune_stage2_lr_decoder: float = unused(0.05)
    finetune_stage2_lr_phase_head: float = unused(0.1)
    finetune_stage3_lr_encoder_bottom: float = unused(0.005)
    finetune_stage3_lr_encoder_top: float = unused(0.01)
    finetune_stage3_lr_decoder: float = unused(0.02)
    finetune_stage3_lr_phase_head: float = unused(0.05)
    finetune_skip_stage3: bool = unused(True)
    finetune_early_stop_patience: int = unused(3)
    finetune_val_split: float = unused(0.05)


@dataclass
class InferenceConfig:
    """The reconstruction."""

    batch_size: int = 1000
    middle_trim: int = unused(32)
    experiment_number: int = unused(0)
    pad_eval: bool = unused(True)
    window: int = unused(20)
    patch_weighting: str = unused("probe")
    varpro_scaling: bool = unused(True)
    log_patch_stats: bool = unused(False)
    patch_stats_limit: int | None = unused(None)


@dataclass
class DatagenConfig:
    """The simulation of training data; ``ptycho simulate`` has its own settings."""

    objects_per_probe: int = unused(4)
    diff_per_object: int = unused(7000)
    object_class: str = unused("dead_leaves")
    image_size: tuple[int, int] = unused((250, 250))
    probe_paths: list[str] = field(default_factory=list, metadata=_UNUSED)
    beamstop_diameter: int = unused(4)


CLASSES: dict[str, type] = {
    "data_config": DataConfig,
    "model_config": ModelConfig,
    "training_config": TrainingConfig,
    "inference_config": InferenceConfig,
    "datagen_config": DatagenConfig,
}
"""The settings objects by name, in PtychoPINN's order."""
