"""What the `ptycho` command says about itself: one summary, description and set of examples per command."""

from __future__ import annotations

from dataclasses import dataclass

OVERVIEW = """\
usage: ptycho COMMAND [flags]

Ptychographic imaging by physics-informed networks: from diffraction patterns
and scan positions to the complex transmission of the object.

commands:
{commands}

a first session:
  ptycho demo --out demo                         see everything work
  ptycho inspect scan.npz                        look at your own scan
  ptycho run scan.npz --out first --nepochs 20   train on it and reconstruct it
  ptycho run scan.npz --out first --force        again, replacing the result

Open first/report.html to see the object, the probe, the fit and the loss.
Lengths are pixels, positions are (row, column) in pixels of the object, doses
are photons per pattern. Settings come from flags, then from the file given by
--config FILE.yaml, then from the defaults.

'ptycho COMMAND --help' explains a command, 'ptycho --version' prints the version.
"""


@dataclass(frozen=True)
class CommandText:
    """The words of one command."""

    summary: str
    positionals: tuple[tuple[str, str], ...]
    description: str
    examples: str


COMMANDS = {
    "simulate": CommandText(
        "make a scan of a known object, with photon noise",
        (),
        "Simulate a scan and write it as DIR/scan.npz (PtychoPINN's keys) with a picture DIR/scan.png.\n"
        "The file holds the true object and the probe in sqrt(photons).",
        "  ptycho simulate --out sim                                   2000 random positions, 1e6 photons per pattern\n"
        "  ptycho simulate --out sim --object dead_leaves --size 512   a larger, rougher object\n"
        "  ptycho simulate --out sim --positions fermat --step 5 --nphotons 1e4 --seed 3",
    ),
    "inspect": CommandText(
        "say and draw what a scan file holds, and what looks wrong about it",
        (("scan", "scan file of any readable format"),),
        "Print shape, dtype, counts, positions, overlap, probe and mask of a scan, guess problems,\n"
        "and draw a picture DIR/NAME.png. An earlier picture of the same scan is replaced.",
        "  ptycho inspect scan.npz\n"
        "  ptycho inspect scan.npz --measurement counts --crop 64      as 'run' would see it with these flags",
    ),
    "convert": CommandText(
        "write a scan file in another format",
        (
            ("source", "scan file of any readable format"),
            ("target", "file to write; its ending says the format: .npz, .h5, .cxi, .nxs or .zarr"),
        ),
        "Read a scan and write it as PtychoPINN's NPZ (.npz), ptychodus's product (.h5), CXI (.cxi),\n"
        "NeXus NXcxi_ptycho (.nxs) or Zarr (.zarr), and say what other programs will not see of it.\n"
        "TARGET appears whole or not at all.",
        "  ptycho convert scan.npz scan.cxi --wavelength 1.24e-10 --distance 2 --detector_pixel_size 75e-6\n"
        "  ptycho convert scan.cxi scan.npz --write_as amplitude       as PtychoPINN itself expects diff3d\n"
        "  ptycho convert raw.cxi small.h5 --beam_centre 515,240 --crop 256",
    ),
    "doctor": CommandText(
        "say what is wrong with a scan before a night is lost",
        (("scan", "scan file of any readable format"),),
        "Look for counts taken for amplitudes, saturation, hot and dead pixels, frozen frames, a beam off\n"
        "centre or unshifted patterns, a probe on other pixels, little overlap, a raster, coinciding\n"
        "positions and low dose, and try the eight orientations of the positions with a short reconstruction.",
        "  ptycho doctor scan.npz\n"
        "  ptycho doctor scan.npz --out checkup                        also writes doctor.json and doctor.png\n"
        "  ptycho doctor scan.npz --orientation transpose              check that the advice was right",
    ),
    "train": CommandText(
        "train a network on a scan; writes the bundle wts.h5.zip",
        (("scan", "scan to learn from; may stand in the YAML file as train_data_file"),),
        "Train a network and write DIR/wts.h5.zip (weights, scale, probe, configuration) and DIR/config.yaml.\n"
        "N follows the scan unless it is given.",
        "  ptycho train scan.npz --out model --nepochs 50\n"
        "  ptycho train scan.npz --out model --nepochs 50 --resume     go on with one that was killed\n"
        "  ptycho train scan.npz --out model --gridsize 2 --n_groups 1024 --probe_trainable\n"
        "  ptycho train scan.npz --out model --from other              go on with the network of another bundle\n"
        "  ptycho train --config settings.yaml --seed 7                flags win over the file",
    ),
    "pretrain": CommandText(
        "train a network on simulated objects, for scans still to come",
        (("scan", "scan whose beam, positions and photons are simulated with; may stand in the YAML file"),),
        "Simulate random objects with the probe, positions, photons and detector of a measured scan, train on them,\n"
        "and write DIR/wts.h5.zip, which reconstructs further scans of that beamline without any training.",
        "  ptycho pretrain scan.npz --out model --n_objects 64 --n_groups 4096 --nepochs 20\n"
        "  ptycho reconstruct next.npz model --out result           another scan, no training\n"
        "  ptycho run next.npz --from model --nepochs 3 --out tuned   or a few epochs on it first\n"
        "  ptycho pretrain scan.npz --out model --nepochs 40 --resume   go on with one that was killed",
    ),
    "reconstruct": CommandText(
        "reconstruct a scan with a trained bundle, or iteratively without one",
        (
            ("scan", "scan to reconstruct; may stand in the YAML file as test_data_file"),
            ("model_path", "bundle wts.h5.zip, or the folder that holds it; may stand in the YAML file"),
        ),
        "Apply a trained network to every pattern of a scan and stitch the patches to one object; or, with --engine\n"
        "or --epochs, reconstruct object and probe iteratively without any network.\n"
        "Writes reconstruction.h5 and .npz, float TIFFs, PNGs and report.html to DIR.",
        "  ptycho reconstruct scan.npz model --out result\n"
        "  ptycho reconstruct scan.npz model/wts.h5.zip --backend numpy --out result   no framework needed\n"
        "  ptycho reconstruct scan.h5 model --out result --dask tcp://host:8786        on a Dask cluster\n"
        "  ptycho reconstruct scan.npz --engine rpie --epochs 30 --out result          no network either\n"
        "  ptycho reconstruct scan.npz --engine rpie --modes 3 --correct_positions gradient --out result",
    ),
    "refine": CommandText(
        "refine object and probe of a result with an iterative engine",
        (
            ("result", "folder of a reconstruction, or its reconstruction.h5 or .npz"),
            ("scan", "the scan that it was made from; by default the one that the result names"),
        ),
        "Start an iterative engine from a result, of a network or of an engine, and write the refined one to DIR with\n"
        "the metrics of both. A run that was killed goes on where it was when the same command is given again.",
        "  ptycho refine result --epochs 5 --out refined\n"
        "  ptycho refine result scan.npz --engine rpie --epochs 20 --modes 3 --out refined\n"
        "  ptycho refine result --correct_positions gradient --affine --out refined",
    ),
    "run": CommandText(
        "train on a scan and reconstruct it: the whole job",
        (("scan", "scan to learn from and to reconstruct; may stand in the YAML file as train_data_file"),),
        "Train a network on a scan, reconstruct the full field, say how well the result explains the patterns\n"
        "(R-factor) and how far its two halves agree (FRC), and write everything to DIR: bundle, object, report.",
        "  ptycho run scan.npz --out result\n"
        "  ptycho run scan.npz --out result --dry-run               say first what memory, disk and time it will take\n"
        "  ptycho run scan.npz --out result --crop 64 --nepochs 30 --mae_weight 1 --nll_weight 0\n"
        "  ptycho run scan.npz --out result --gridsize 2 --device cuda --config settings.yaml\n"
        "  ptycho run scan.npz --out result --refine 10              the network, then ten epochs of rpie from it\n"
        "  ptycho run scan.npz --out result --live --open            with a page in the browser that shows it at work",
    ),
    "view": CommandText(
        "look around in a result: a page in the web browser",
        (("result", "folder of a reconstruction, or its reconstruction.h5 or .npz"),),
        "Serve a page, on this machine alone, of object, probe, positions, losses and resolution. A click on a\n"
        "position shows its measured pattern beside the predicted one. The page lasts until Ctrl-C.",
        "  ptycho view result --open\n"
        "  ptycho view result --scan elsewhere/scan.npz --crop 64      where the scan is now, read as for the result\n"
        "  ptycho view result --port 8123                              and, from afar, ssh -L 8123:localhost:8123 HOST",
    ),
    "evaluate": CommandText(
        "compare a reconstruction with the truth or with another one",
        (
            ("result", "folder of a reconstruction, or its reconstruction.h5 or .npz"),
            ("truth", "scan file that holds its object, or another reconstruction"),
        ),
        "Register the two (sub-pixel shift, global phase, phase ramp, amplitude scale) and print SSIM, PSNR, MAE\n"
        "and Fourier ring correlation. Writes evaluation.json, evaluation.png and frc.png to DIR, if one is given.",
        "  ptycho evaluate result sim/scan.npz\n  ptycho evaluate first second --out comparison",
    ),
    "demo": CommandText(
        "simulate, run and evaluate, in a few minutes",
        (),
        "Simulate a scan of a known object, train on it, reconstruct it, and compare with the truth.\n"
        "Everything that is written is what the other commands would write: DIR/scan.npz and the result beside it.",
        "  ptycho demo --out demo\n"
        "  ptycho demo --out demo --nepochs 5 --seed 1                 quicker, with other random numbers",
    ),
    "bundle info": CommandText(
        "say what a trained model is and holds",
        (("file", "bundle wts.h5.zip of this library or of PtychoPINN, or the folder that holds it"),),
        "Check a model file and print who wrote it, the model's settings and scale, its losses, and every member\n"
        "with its size and checksum. Nothing in the file is run.",
        "  ptycho bundle info model\n  ptycho bundle info old/wts.h5.zip --json",
    ),
    "bundle import": CommandText(
        "take over a model that PtychoPINN has trained",
        (("archive", "wts.h5.zip of PtychoPINN (TensorFlow or PyTorch), or the folder that holds it"),),
        "Read the weights, the scale and the probe of PtychoPINN's cnn and write DIR/wts.h5.zip and DIR/config.yaml.\n"
        "The model answers as the original does; a layer that has no place here is refused by its name.",
        "  ptycho bundle import old/wts.h5.zip --out model\n"
        "  ptycho bundle import old/wts.h5.zip --out model --probe scan.npz   its PyTorch side stores no probe",
    ),
    "bundle export": CommandText(
        "write a model's network for other programs, as ONNX or as a torch.export program",
        (("bundle", "bundle wts.h5.zip, or the folder that holds it"),),
        "Write the network with one input and two outputs, amplitude and phase, for any number of patterns at once.\n"
        "What they are stands in the file.",
        "  ptycho bundle export model --to onnx --out model.onnx\n  ptycho bundle export model --to torch",
    ),
}

FAMILIES = {name.split()[0] for name in COMMANDS if " " in name}
"""First words of the commands of two words."""


def overview(family: str = "") -> str:
    """Return the help of `ptycho` itself, or of a family of its commands."""
    chosen = {name: text for name, text in COMMANDS.items() if not family or name.split()[0] == family}
    listed = "\n".join(f"  {name:<13} {text.summary}" for name, text in chosen.items())
    if family:
        return f"usage: ptycho {family} COMMAND [flags]\n\ncommands:\n{listed}\n"
    return OVERVIEW.format(commands=listed)
