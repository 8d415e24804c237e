"""PtychoPINN's Keras archives: the imported model answers as the original does; what it lacks is refused by name."""

import io
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras

from ptycho.backends import get_backend
from ptycho.errors import DataError
from ptycho.model.bundle import load_bundle, save_bundle
from ptycho.model.generators import find_generator
from ptycho.model.importers.archives import CARTESIAN, import_archive
from ptycho.model.importers.keras_models import network_of_keras
from ptycho.model.pinn import PtychoPINN, merge_window
from tests.model import keras_original as original

# Keras hands numpy the weights in a way that numpy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SCALE = 40.0


def settings(N=64, gridsize=1, **more):
    rng = np.random.default_rng(5)
    probe = (rng.normal(size=(N, N, 1)) + 1j * rng.normal(size=(N, N, 1))).astype(np.complex64) / 4
    plain = {"N": N, "gridsize": gridsize, "nphotons": 1e6, "intensity_scale": SCALE, "probe": probe, "h5_path": "w"}
    return {**plain, "object.big": True, "probe.big": True, "pad_object": True, "model_type": "pinn", **more}


def written(folder, model, given, name="diffraction_to_obj"):
    members = original.archive_members({name: original.keras_bytes(model)}, given)
    return original.write_zip(folder / "wts.h5.zip", members)


def answer(bundle, x):
    """The network's own answer to what the layer ``input`` is given."""
    backend = get_backend("numpy")
    seen = x * np.exp(-bundle.params["log_scale"])
    network = find_generator(bundle.config.model.architecture)
    return network.apply(bundle.params, seen.astype(np.float32), bundle.config.model, backend)


def pattern(N, channels, count=2):
    return np.random.default_rng(1).gamma(0.3, 20, (count, N, N, channels)).astype(np.float32)


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-3, atol=1e-3 * np.abs(desired).max())


@pytest.fixture(scope="module")
def trained():
    """The models of the default case, and their archive's members; its layers are counted from 0."""
    keras.utils.clear_session()
    given = settings()
    models = original.build(probe=given["probe"], intensity_scale=SCALE)
    return models, original.archive_members({"diffraction_to_obj": original.keras_bytes(models[0])}, given)


class TestOutput:
    @pytest.mark.parametrize(
        "case",
        [
            {"gridsize": 2, "activation": "swish"},
            {"gridsize": 2, "object_big": False, "probe_big": False, "activation": "softplus"},
            {"pad_object": False, "activation": "relu"},
            {"scale": 2, "polar": False},
            pytest.param({"N": 128}, marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_is_the_original_s(self, tmp_path, case):
        *_, whole, network = original.build(**case)
        N, gridsize = case.get("N", 64), case.get("gridsize", 1)
        bundle = import_archive(written(tmp_path, whole, settings(N, gridsize), "autoencoder"))
        x = pattern(N, gridsize**2)
        close(answer(bundle, x), network.predict(x, verbose=0))
        model = bundle.config.model
        assert (model.N, model.gridsize, model.n_filters_scale) == (N, gridsize, case.get("scale", 1))
        assert (model.amp_activation, model.pad_object) == (
            case.get("activation", "sigmoid"),
            case.get("pad_object", True),
        )
        assert (model.object_big, model.probe_big) == (case.get("object_big", True), case.get("probe_big", True))
        assert model.architecture == ("cnn" if case.get("polar", True) else CARTESIAN)

    def test_of_the_whole_model_too(self, trained, tmp_path):
        """Object and expected amplitude from scaled patterns, through this library's physics and its own bundle."""
        (_, whole, _), members = trained
        bundle = import_archive(original.write_zip(tmp_path / "wts.h5.zip", members))
        bundle = load_bundle(save_bundle(bundle, tmp_path / "imported"))
        config, x = bundle.config.model, pattern(64, 1)
        model = PtychoPINN(
            config,
            get_backend("numpy"),
            bundle.intensity_scale,
            bundle.group_canvas_side,
            None,
            merge_window(bundle.probe),
        )
        batch = {"X": x / np.float32(bundle.intensity_scale), "relative": np.zeros((2, 1, 2), np.float32)}
        patches = model.patches(bundle.params, batch)
        counts = model.expected_counts(bundle.params, patches)
        image, amplitude = whole.predict([x, np.zeros((2, 1, 2, 1), np.float32)], verbose=0)
        close(patches[:, 0], image[..., 0])
        close(np.sqrt(counts[:, 0]), amplitude[..., 0])

    def test_names_and_order_mean_nothing(self, trained, tmp_path):
        members = trained[1]

        def shuffled(config):
            np.random.default_rng(0).shuffle(config["config"]["layers"])
            return renamed(config, {layer["name"]: f"layer {i}" for i, layer in enumerate(config["config"]["layers"])})

        names = {}

        def renamed(config, new):
            names.update(new)
            text = json.dumps(config)
            for old, name in sorted(new.items(), key=lambda item: -len(item[0])):
                text = text.replace(f'"{old}"', f'"{name}"')
            return json.loads(text)

        def weights(file):
            for group in file["layers"].values():
                group["vars"].attrs["name"] = names.get(group["vars"].attrs["name"], "gone")

        model = changed(members["diffraction_to_obj/model.keras"], shuffled, weights)
        params = network_of_keras(model, "shuffled").params
        plain = network_of_keras(members["diffraction_to_obj/model.keras"], "plain").params
        assert params.keys() == plain.keys()
        assert all(np.array_equal(params[name], plain[name]) for name in plain)

    def test_weights_of_older_keras_go_by_the_layer_s_class(self, trained):
        data = trained[1]["diffraction_to_obj/model.keras"]

        def unnamed(file):
            for group in file["layers"].values():
                del group["vars"].attrs["name"]
            file.move("layers", "_layer_checkpoint_dependencies")

        params, plain = (network_of_keras(model, "m").params for model in (changed(data, weights=unnamed), data))
        assert all(np.array_equal(params[name], plain[name]) for name in plain)

    def test_scale_and_probe_are_the_archive_s(self, trained, tmp_path):
        bundle = import_archive(original.write_zip(tmp_path / "wts.h5.zip", trained[1]))
        np.testing.assert_allclose(bundle.params["log_scale"], np.log(SCALE), rtol=1e-6)
        stored = bundle.params["probe/real"] + 1j * bundle.params["probe/imag"]
        np.testing.assert_array_equal(stored[0], settings()["probe"][..., 0])
        assert bundle.intensity_scale == pytest.approx(1e3 / 32)
        assert bundle.config.model.start_iterations is None
        assert bundle.manifest["imported_from"]["framework"] == "tensorflow"

    def test_tensors_in_the_settings_are_read_as_arrays(self, trained, tmp_path):
        import tensorflow as tf

        given = settings()
        members = trained[1] | {
            "diffraction_to_obj/params.dill": pickle.dumps(given | {"probe": tf.constant(given["probe"])})
        }
        bundle = import_archive(original.write_zip(tmp_path / "wts.h5.zip", members))
        np.testing.assert_array_equal(bundle.params["probe/imag"][0], given["probe"][..., 0].imag)


def changed(model, config=lambda content: content, weights=None):
    """A ``model.keras`` with another ``config.json`` or other weights."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model)) as old, zipfile.ZipFile(target, "w") as new:
        new.writestr("config.json", json.dumps(config(json.loads(old.read("config.json")))))
        content = io.BytesIO(old.read("model.weights.h5"))
        if weights is not None:
            with h5py.File(content, "r+") as file:
                weights(file)
        new.writestr("model.weights.h5", content.getvalue())
    return target.getvalue()


def layer(config, name):
    return next(entry for entry in config["config"]["layers"] if entry["name"] == name)


class TestRefusals:
    """Each names the layer, or the file, that does not fit."""

    @pytest.mark.parametrize(
        ("name", "change", "sentence"),
        [
            ("conv2d_1", {"class_name": "Lambda"}, "'conv2d_1' is Lambda, where PtychoPINN's cnn has a Conv2D"),
            ("conv2d_2", {"class_name": "SeparableConv2D"}, "'conv2d_2' is SeparableConv2D"),
            ("max_pooling2d", {"class_name": "AveragePooling2D"}, "'max_pooling2d' is AveragePooling2D"),
            ("amp", {"class_name": "Lambda"}, "'amp' is Lambda"),
            (
                "obj",
                {"class_name": "Lambda"},
                "0 layers CombineComplexLayer, one is expected; it has the layer 'obj', a",
            ),
            ("center_mask_layer", {"class_name": "Dense"}, "'center_mask_layer' is Dense"),
            ("intensity_scaler", {"class_name": "BatchNormalization"}, "'intensity_scaler' is BatchNormalization"),
        ],
    )
    def test_another_layer(self, trained, name, change, sentence):
        def config(content):
            layer(content, name).update(change)
            return content

        with pytest.raises(DataError, match=sentence):
            network_of_keras(changed(trained[1]["diffraction_to_obj/model.keras"], config), "model.keras")

    @pytest.mark.parametrize(
        ("name", "key", "value"),
        [
            ("conv2d", "activation", "tanh"),
            ("conv2d", "strides", [2, 2]),
            ("conv2d_3", "padding", "valid"),
            ("conv2d_3", "groups", 2),
            ("conv2d_6", "activation", "relu"),
            ("up_sampling2d", "interpolation", "bilinear"),
            ("max_pooling2d", "pool_size", [3, 3]),
            ("center_mask_layer", "kind", "center"),
            ("amp", "activation_name", "gelu"),
            ("phi", "scale", 1.0),
        ],
    )
    def test_another_setting(self, trained, name, key, value):
        def config(content):
            layer(content, name)["config"][key] = value
            return content

        with pytest.raises(DataError, match=f"{name}'|the phase is not"):
            network_of_keras(changed(trained[1]["diffraction_to_obj/model.keras"], config), "model.keras")

    def test_other_channels(self, trained):
        def config(content):
            layer(content, "get_item")["inbound_nodes"][0]["args"][1][1]["config"]["stop"] = -3
            return content

        with pytest.raises(DataError, match="'get_item' is GetItem, where PtychoPINN's cnn has the channels"):
            network_of_keras(changed(trained[1]["diffraction_to_obj/model.keras"], config), "model.keras")

    def test_skip_connections(self, trained):
        def config(content):
            second = layer(content, "conv2d_9")["inbound_nodes"][0]["args"]
            layer(content, "conv2d_9")["inbound_nodes"][0]["args"] = [second[0], second[0]]
            return content

        with pytest.raises(DataError, match="'conv2d_9' is Conv2D, where PtychoPINN's cnn has a layer with 1 input"):
            network_of_keras(changed(trained[1]["diffraction_to_obj/model.keras"], config), "model.keras")

    def test_layers_in_circles(self, trained):
        def config(content):
            layer(content, "conv2d")["inbound_nodes"] = json.loads(
                json.dumps(layer(content, "conv2d")["inbound_nodes"]).replace("intensity_scaler", "max_pooling2d")
            )
            return content

        with pytest.raises(DataError, match="'max_pooling2d' is MaxPooling2D, where PtychoPINN's cnn has at most 8"):
            network_of_keras(changed(trained[1]["diffraction_to_obj/model.keras"], config), "model.keras")

    def test_links_and_objects_among_the_weights(self, trained, tmp_path):
        secret = tmp_path / "secret.h5"
        with h5py.File(secret, "w") as file:
            file["x"] = np.ones((3, 3, 1, 32), np.float32)

        def external(file):
            del file["layers/conv2d/vars/0"]
            file["layers/conv2d/vars/0"] = h5py.ExternalLink(str(secret), "x")

        def raw(file):
            del file["layers/conv2d/vars/1"]
            file["layers/conv2d/vars"].create_dataset("1", (32,), "f4", external=[(str(secret), 0, 128)])

        def bomb(file):
            del file["layers/conv2d/vars/1"]
            file["layers/conv2d/vars"].create_dataset("1", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")

        for change, sentence in ((external, "no plain array"), (raw, "no plain array"), (bomb, "refused")):
            with pytest.raises(DataError, match=sentence):
                network_of_keras(changed(trained[1]["diffraction_to_obj/model.keras"], weights=change), "model.keras")

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"gridsize": 2}, "sees 1 pattern.s. of 64 pixels, but its params.dill says N 64 and gridsize 2"),
            ({"N": 128}, "says N 128"),
            ({"N": 96}, "N = 96 is not possible"),
            ({"probe": None}, "holds no probe; name a scan"),
            ({"probe": np.zeros((32, 32))}, r"its probe is float64 of shape \(32, 32\)"),
            ({"amp_activation": 3}, "amp_activation"),
        ],
    )
    def test_settings_that_do_not_fit(self, trained, tmp_path, given, sentence):
        params = pickle.dumps(settings() | given)
        path = original.write_zip(tmp_path / "wts.h5.zip", trained[1] | {"diffraction_to_obj/params.dill": params})
        with pytest.raises(DataError, match=sentence):
            import_archive(path)

    def test_a_probe_can_be_given(self, trained, tmp_path):
        params = pickle.dumps(settings() | {"probe": None})
        path = original.write_zip(tmp_path / "wts.h5.zip", trained[1] | {"diffraction_to_obj/params.dill": params})
        probe = np.ones((2, 64, 64), np.complex64)
        assert import_archive(path, probe).probe.shape == (2, 64, 64)
        with pytest.raises(DataError, match="64 x 64 pixels are expected"):
            import_archive(path, np.ones((1, 32, 32), np.complex64))

    def test_saved_models_are_programs(self, tmp_path):
        path = original.write_zip(tmp_path / "wts.h5.zip", {"diffraction_to_obj/saved_model.pb": b"x"})
        with pytest.raises(DataError, match=r"saved_model\.pb, which is a program"):
            import_archive(path)

    def test_what_is_no_archive(self, trained, tmp_path):
        bundle = import_archive(original.write_zip(tmp_path / "wts.h5.zip", trained[1]))
        again = save_bundle(bundle, tmp_path / "again")
        with pytest.raises(DataError, match="is a bundle of this library already"):
            import_archive(again)
        with pytest.raises(DataError, match="no model archive of PtychoPINN"):
            import_archive(original.write_zip(tmp_path / "other.zip", {"a.txt": b""}))
        with pytest.raises(DataError, match="there is no such file"):
            import_archive(tmp_path / "absent.zip")

    def test_a_lambda_layer_is_not_run(self, trained, tmp_path):
        """A model that Keras itself would run code for on loading."""
        marker = tmp_path / "ran"
        image = keras.Input((64, 64, 1))
        code = f"__import__('os').mkdir({str(marker)!r})"
        model = keras.Model(image, keras.layers.Lambda(lambda x: (eval(code), x)[1], output_shape=(64, 64, 1))(image))
        model(np.zeros((1, 64, 64, 1)))
        marker.rmdir()  # the trap works
        path = written(tmp_path, model, settings())
        with pytest.raises(DataError, match="a Lambda, which holds code"):
            import_archive(path)
        assert not marker.exists()
