"""CDTools (cdtools-py) on the work in an NPZ file: Adam through its FancyPtycho model."""

from __future__ import annotations

from exchange import Watch, answer, given

_RATE, _BATCH = 0.002, 10
_WAVELENGTH, _DETECTOR, _DISTANCE = 1e-9, 1e-4, 1.0


def main() -> None:
    """Reconstruct."""
    import torch
    from cdtools.datasets import Ptycho2DDataset
    from cdtools.models import FancyPtycho
    from cdtools.tools.initializers import exit_wave_geometry
    from cdtools.tools.interactions import pixel_to_translations

    work, watch = given(), Watch()
    size = work["probe"].shape[-1]
    torch.manual_seed(work["seed"])
    watch.ready()
    basis = torch.tensor([[0.0, -_DETECTOR], [-_DETECTOR, 0.0], [0.0, 0.0]])
    first_pixels = torch.tensor(work["positions"] - size // 2, dtype=torch.float32)
    pixel = exit_wave_geometry(basis, (size, size), _WAVELENGTH, _DISTANCE)
    scan = Ptycho2DDataset(
        pixel_to_translations(pixel, first_pixels),
        torch.tensor(work["counts"]),
        wavelength=torch.tensor(_WAVELENGTH),
        detector_geometry={"distance": _DISTANCE, "basis": basis, "corner": None},
    )
    model = FancyPtycho.from_dataset(scan, n_modes=len(work["probe"]), obj_padding=4)
    model.probe.data = torch.tensor(work["probe"]) / model.probe_norm
    model.translation_offsets.requires_grad = False
    for _ in model.Adam_optimize(work["epochs"], scan, lr=_RATE, batch_size=_BATCH, thread=False):
        watch.epoch()
    origin = model.min_translation.numpy()
    probe = (model.probe * model.probe_norm).detach().numpy()
    answer(watch, model.obj.detach().numpy(), origin, probe, "probe")


if __name__ == "__main__":
    main()
