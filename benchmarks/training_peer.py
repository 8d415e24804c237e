"""Epochs of PtychoPINN itself (TensorFlow) on a scan file, as its own interpreter runs them; prints their seconds.

    PYTHONPATH=CHECKOUT PYTHON benchmarks/training_peer.py SCAN.npz GROUPS EPOCHS

Run by benchmarks.training; nothing of this library is imported.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any


def main() -> None:
    """Train through PtychoPINN's own functions and print the seconds of every epoch."""
    path, groups, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.argv = sys.argv[:1]  # it parses the command line where it is imported
    from ptycho import params
    from ptycho.config.config import ModelConfig, TrainingConfig, update_legacy_dict

    with tempfile.TemporaryDirectory() as folder:
        config = TrainingConfig(
            model=ModelConfig(N=64, gridsize=2, n_filters_scale=1),
            train_data_file=path, output_dir=folder, nepochs=epochs, n_groups=groups, batch_size=16,
        )  # fmt: skip
        update_legacy_dict(params.cfg, config)
        import tensorflow as tf

        from ptycho.workflows import components

        seconds: list[tuple[float, float]] = []

        class Clock(tf.keras.callbacks.Callback):
            """Wall and CPU seconds of every epoch."""

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.began = time.perf_counter(), time.process_time()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                seconds.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))

        fit = tf.keras.Model.fit

        def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
            callbacks = [*(kwargs.pop("callbacks", None) or []), Clock()]
            return fit(model, *args, **{**kwargs, "verbose": 0, "callbacks": callbacks})

        tf.keras.Model.fit = watched
        scan = components.load_data(path, n_images=groups)
        components.train_cdi_model(scan, None, config)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
