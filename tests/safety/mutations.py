"""Hostile files made from honest ones: links, sizes, types, nesting, names, values and bytes, drawn at random."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import socket
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5s

ESCAPES = ("\x1b]0;owned\x07", "\x1b[2J", "‮gpj.exe", "line\nbreak", "\u2066")
LONG = "n" * 6000
SHAPES = ((1 << 40, 16, 16), (1 << 20, 1 << 20, 4), (0, 16, 16), (6, 0, 16), (6, 16, 17), (6,), (), (2,) * 20)
DTYPES = ("S5", "u1", "c8", "f2", "i8", "b1", "f8", "V7", "S70000")
VALUES = (np.nan, np.inf, -1.0, 1e300, 0.0, 1e-300)


class Outside:
    """Files that no command may read, and a mark that no command may make.

    Parameters
    ----------
    folder
        Where they are put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder / "secret", folder / "ran"
        self.folder.mkdir(parents=True)
        values = np.full((6, 16, 16), 7777, np.uint16)
        for name in ("secret.h5", "secret0.h5", "diffraction.h5"):
            with h5py.File(self.folder / name, "w") as file:
                file["data"] = file["patterns"] = values
        (self.folder / "secret.raw").write_bytes(values.tobytes() * 40)
        (self.folder / "secret.yaml").write_text("bin: 1\n")
        (self.folder / "secret.txt").write_text("the password\n" * 100)

    def reset(self) -> None:
        """Set every access time back to where it tells of the next reading."""
        for path in self.folder.iterdir():
            os.utime(path, (1000, path.stat().st_mtime))

    def read(self) -> list[str]:
        """Names of the files that were read since `reset`."""
        return [path.name for path in self.folder.iterdir() if path.stat().st_atime > 1000]


class Trap:
    """Makes the mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.mark}'",)


class Mutator:
    """Changes honest files in place.

    Parameters
    ----------
    rng
        What is drawn from.
    outside
        What must not be read.
    """

    def __init__(self, rng: np.random.Generator, outside: Outside) -> None:
        self.rng, self.outside = rng, outside

    def choose(self, options: Any) -> Any:
        """One of some things."""
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def mutate(self, path: Path) -> str:
        """Change a file or a store, and return what was done."""
        if self.rng.random() < 0.03:
            return self.irregular(path)
        if path.is_dir():
            return self.store(path)
        head = path.read_bytes()[:8]
        if head.startswith(b"\x89HDF") and self.rng.random() < 0.9:
            return self.hdf5(path)
        if head.startswith(b"PK") and self.rng.random() < 0.9:
            return self.archive(path)
        if path.suffix == ".yaml":
            return self.yaml(path)
        content = path.read_bytes()
        path.write_bytes(self.damaged(content))
        return "bytes"

    def irregular(self, path: Path) -> str:
        """Something that is no file in the place of the file."""
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        kind = self.choose(["pipe", "socket", "folder", "device", "link to a pipe", "link to itself"])
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path.symlink_to(self.choose(["/dev/zero", "/dev/random", "/dev/stdin"]))
        elif kind == "link to itself":
            path.symlink_to(path.name)
        else:
            os.mkfifo(path.with_name("pipe"))
            path.symlink_to("pipe")
        return f"links: {kind}"

    def damaged(self, content: bytes) -> bytes:
        """Some bytes changed, inserted, left out or repeated."""
        changed = bytearray(content)
        for _ in range(int(self.rng.integers(1, 5))):
            at, other = (int(self.rng.integers(max(1, len(changed)))) for _ in range(2))
            size = int(self.rng.integers(1, 64))
            kind = self.choose(["change", "insert", "delete", "repeat", "cut"])
            if kind == "change":
                changed[at : at + size] = self.rng.bytes(size)
            elif kind == "insert":
                changed[at:at] = self.rng.bytes(size)
            elif kind == "delete":
                del changed[at : at + size * size]
            elif kind == "repeat":
                changed[at:at] = changed[other : other + size * size]
            elif self.rng.random() < 0.3:
                del changed[at:]
        return bytes(changed)

    def plain(self, depth: int = 0) -> Any:
        """A JSON value that nobody expects."""
        deep: Any = 1
        for _ in range(int(self.choose([3, 70, 400]))):
            deep = [deep] if self.rng.random() < 0.5 else {"a": deep}
        text = self.choose([LONG, *ESCAPES, "../../secret/secret.h5", "/dev/zero", "none", ""])
        number = self.choose([-1, 0, 1, 2**31, 2**63, 1e308, -0.5, 10**400])
        return self.choose([None, True, [], {}, number, number, text, text, deep, [number] * 3, {text: number}])

    def json(self, text: str | bytes) -> bytes:
        """A JSON text with one place of it changed."""
        kind = self.choose(["place", "place", "place", "place", "nest", "number", "cut"])
        if kind == "nest":
            return self.choose([b"[", b'{"a":']) * int(self.choose([900, 10**5]))
        if kind == "number":
            return b'{"version": 1' + b"0" * 6000 + b"}"
        try:
            content = json.loads(text)
        except ValueError:
            return self.damaged(text if isinstance(text, bytes) else text.encode())
        if kind == "cut" or not isinstance(content, dict) or not content:
            return json.dumps(self.plain()).encode()
        node: Any = content
        while True:
            key = self.choose(node if isinstance(node, dict) else range(len(node)))
            below = node[key]
            if not isinstance(below, dict | list) or not below or self.rng.random() < 0.3:
                break
            node = below
        if isinstance(node, dict) and self.rng.random() < 0.25:
            value = node.pop(key)
            if self.rng.random() < 0.5:
                node[self.choose([LONG, *ESCAPES])] = value
        else:
            node[key] = self.plain()
        return json.dumps(content).encode()

    def hdf5(self, path: Path) -> str:
        """One dataset or group of an HDF5 file changed."""
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
            name = self.choose(names)
            kinds = {"links": 4, "sizes": 2, "types": 2, "nesting": 1, "names": 2, "values": 2}
            kind = self.choose([kind for kind, weight in kinds.items() for _ in range(weight)])
            done = {
                "links": self._hdf5_links,
                "sizes": self._hdf5_sizes,
                "types": self._hdf5_types,
                "nesting": self._hdf5_nesting,
                "names": self._hdf5_names,
                "values": self._hdf5_values,
            }[kind](file, name, path.parent)
        return f"{kind}: {done}"

    def _targets(self, home: Path, name: str) -> str:
        """A file of the outside, in one of the ways in which it can be named."""
        way = self.choose(["absolute", "relative", "symlink", "folder", "decoy", "pipe", "missing", "itself", "long"])
        if way == "symlink":
            (home / "here.h5").symlink_to(self.outside.folder / name)
        if way == "folder":
            (home / "sub").symlink_to(self.outside.folder)
        if way == "decoy":
            shutil.copy(self.outside.folder / name, home / name)
        if way == "pipe":
            os.mkfifo(home / "pipe.h5")
        relative = os.path.relpath(self.outside.folder / name, home)
        named = {"relative": relative, "symlink": "here.h5", "folder": f"sub/{name}", "pipe": "pipe.h5"}
        named |= {"missing": "gone.h5", "itself": f"scan{home.suffix}", "long": LONG}
        return str(named.get(way, self.outside.folder / name))

    def _hdf5_links(self, file: h5py.File, name: str, home: Path) -> str:
        kind = self.choose(["external", "raw", "virtual", "series", "nested", "soft", "overlapping"])
        shape = file[name].shape or (1,)
        dtype = file[name].dtype if file[name].dtype.kind in "iufc" else np.dtype("u2")
        del file[name]
        if kind == "external":
            file[name] = h5py.ExternalLink(self._targets(home, "secret.h5"), "data")
        elif kind == "raw":
            file.create_dataset(name, shape, dtype, external=[(self._targets(home, "secret.raw"), 0, h5s.UNLIMITED)])
        elif kind == "soft":
            file[name] = h5py.SoftLink(self.choose([f"/{name}", f"/{name}/a", "/gone", f"/{LONG}", "/"]))
        elif kind == "overlapping":
            file["d4"] = np.ones(shape, dtype)
            for depth in range(4):
                self._virtual(file, f"d{depth}" if depth else name, ".", f"d{depth + 1}", shape, dtype, times=30)
        elif kind == "virtual":
            source = self.choose(["data", name, "gone", LONG])
            self._virtual(file, name, self._targets(home, "secret.h5"), source, shape, dtype)
        else:
            self._series(file, name, home, shape, dtype, nested=kind == "nested")
        return kind

    @staticmethod
    def _virtual(
        file: Any, name: str, target: str, source: str, shape: tuple[int, ...], dtype: Any, times: int = 1
    ) -> None:
        layout = h5py.VirtualLayout(shape, dtype)
        for _ in range(times):
            layout[...] = h5py.VirtualSource(target, source, shape)
        file.create_virtual_dataset(name, layout)

    def _series(
        self, file: Any, name: str, home: Path, shape: tuple[int, ...], dtype: np.dtype[Any], nested: bool
    ) -> None:
        target = f"{self.outside.folder}/secret%b.h5"
        if nested:
            target = "inner%b.h5"
            with h5py.File(home / "inner0.h5", "w") as inner:
                raw = [(str(self.outside.folder / "secret.raw"), 0, h5s.UNLIMITED)]
                inner.create_dataset("data", shape, dtype, external=raw)
        space = h5s.create_simple(shape, (h5s.UNLIMITED, *shape[1:]))
        ones = (1,) * len(shape)
        space.select_hyperslab((0,) * len(shape), (h5s.UNLIMITED, *ones[1:]), (shape[0], *ones[1:]), shape)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_virtual(space, target.encode(), b"data", h5s.create_simple(shape))
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, properties, links)

    def _hdf5_sizes(self, file: h5py.File, name: str, home: Path) -> str:
        shape = self.choose(SHAPES)
        dtype = file[name].dtype if file[name].dtype.kind in "iufc" else np.dtype("u2")
        del file[name]
        chunked = len(shape) in (3,) and min(shape) > 0 and self.rng.random() < 0.7
        if self.rng.random() < 0.3:
            zeros = np.zeros((160, 1024, 1024), np.uint16)  # 336 MB in 0.3 MB
            file.create_dataset(name, data=zeros, chunks=(16, 1024, 1024), compression="gzip")
            return "zeros"
        how = {"chunks": (1, *(min(n, 64) for n in shape[1:])), "compression": "gzip"} if chunked else {}
        file.create_dataset(name, shape, dtype, **how)
        return f"{len(shape)} axes"

    def _hdf5_types(self, file: h5py.File, name: str, home: Path) -> str:
        shape = file[name].shape
        del file[name]
        kind = self.choose(["group", "text", "reference", "ragged", "compound", "empty", *DTYPES])
        if kind == "group":
            file.create_group(name)
        elif kind == "empty":
            file[name] = h5py.Empty("f4")
        else:
            made = {"text": h5py.string_dtype(), "reference": h5py.ref_dtype, "ragged": h5py.vlen_dtype("i4")}
            made["compound"] = np.dtype([("r", "f4"), ("i", "i4")])
            file.create_dataset(name, shape, made.get(kind, kind))
        return str(kind)

    def _hdf5_nesting(self, file: h5py.File, name: str, home: Path) -> str:
        texts = [key for key, node in _datasets(file) if node.dtype.kind in "OS" and node.shape == ()]
        if texts and self.rng.random() < 0.7:
            key = self.choose(texts)
            text = file[key][()]
            del file[key]
            file[key] = np.bytes_(self.json(text))
            return "text"
        group = file
        for _ in range(1500):
            group = group.create_group("g")
        return "groups"

    def _hdf5_names(self, file: h5py.File, name: str, home: Path) -> str:
        new = self.choose([LONG, *ESCAPES])
        kind = self.choose(["dataset", "attribute", "value", "units", "group"])
        if kind == "dataset":
            file.move(name, f"{name.rpartition('/')[0]}/{new}".lstrip("/"))
        elif kind == "group":
            file.create_group(new)
        elif kind == "attribute":
            file[name].attrs[new[:60000]] = new
        elif kind == "units":
            file[name].attrs["units"] = self.choose([new, np.arange(3), b"\xff\xfe", h5py.Empty("f4")])
        else:
            for key in list(file.attrs):
                file.attrs[key] = self.choose([new, 3, -1.0, np.arange(4)])
            for key, node in _datasets(file):
                if node.dtype.kind in "OS" and node.shape == ():
                    del file[key]
                    file[key] = new
        return kind

    def _hdf5_values(self, file: h5py.File, name: str, home: Path) -> str:
        node = file[name]
        value = self.choose(VALUES)
        if node.dtype.kind not in "fc" or node.size == 0:
            node.attrs["units"] = self.choose(["px", "furlong", "m", "nm"])
            return "units"
        node[...] = value if self.rng.random() < 0.5 else self.rng.normal(size=node.shape) * 1e9
        return str(value)

    def archive(self, path: Path) -> str:
        """One member of a zip archive changed, or one more."""
        with zipfile.ZipFile(path) as old:
            members = {info.filename: old.read(info) for info in old.infolist()}
        name = self.choose(members)
        kind = self.choose(["content"] * 6 + ["names", "names", "sizes", "sizes", "types", "links", "drop"])
        extra: list[tuple[Any, bytes]] = []
        if kind == "content":
            members[name], kind = self._content(name, members[name])
        elif kind == "names":
            escape = "\x1b]0;x\x07.npy"
            new = self.choose(["../evil.npy", "/tmp/evil.npy", LONG + ".npy", escape, name, name, "‮.npy"])
            extra = [(new, members[name])]
        elif kind == "sizes":
            extra = [(f"zeros{i}.npy", self._zeros()) for i in range(int(self.choose([1, 9])))]
        elif kind == "links":
            info = zipfile.ZipInfo("link.npy")
            info.external_attr = 0o120777 << 16
            extra = [(info, b"/etc/passwd")]
        else:
            members.pop(name)
            if kind == "types":
                extra = [(name + "/", b"")]
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new_file:
            warnings.simplefilter("ignore")
            for key, data in [*members.items(), *extra]:
                new_file.writestr(key, data)
        if self.rng.random() < 0.08:
            content = bytearray(path.read_bytes())
            struct.pack_into("<I", content, content.rfind(b"PK\x01\x02") + 24, 0xFFFFFFF0)
            path.write_bytes(content)
            kind = "sizes"
        return kind

    @staticmethod
    def _zeros() -> bytes:
        stream = io.BytesIO()
        np.save(stream, np.zeros(60 << 17))
        return stream.getvalue()

    def _content(self, name: str, data: bytes) -> tuple[bytes, str]:
        """The bytes of a member changed according to what it is."""
        if name.endswith(".npy"):
            return self._array(data)
        if name.endswith(".json"):
            return self.json(data), "nesting"
        if name.endswith((".dill", ".pkl")) and self.rng.random() < 0.7:
            return self._pickle(), "types"
        if data.startswith(b"PK") and self.rng.random() < 0.7:
            return self._inner(data), "types"
        return self.damaged(data), "bytes"

    def _inner(self, data: bytes) -> bytes:
        """An archive in the archive, changed in the same ways."""
        inner = self.outside.folder.parent / "inner.zip"
        inner.write_bytes(data)
        self.archive(inner)
        changed = inner.read_bytes()
        inner.unlink()
        return changed

    def _pickle(self) -> bytes:
        """A pickle that runs code, grows, or is of another type."""
        trap = Trap(self.outside.mark)
        grown = b"\x80\x04\x8c\x01a\x94" + b"".join(
            b"cpathlib\nPurePosixPath\nh" + bytes([i]) + b"h" + bytes([i]) + b"\x86R\x94" for i in range(30)
        )
        return self.choose(
            [
                pickle.dumps(trap),
                pickle.dumps({"N": 64, "gridsize": 1, "probe": trap}),
                pickle.dumps({"N": self.plain(), "gridsize": self.plain()}),
                pickle.dumps(self.plain()),
                b"cos\nsystem\n(S'touch ran'\ntR.",
                grown + b".",
                b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".",
            ]
        )

    def _array(self, data: bytes) -> tuple[bytes, str]:
        try:
            values = np.load(io.BytesIO(data))
        except ValueError:
            return self.damaged(data), "bytes"
        kind = self.choose(["types", "types", "sizes", "values", "nesting", "objects"])
        stream = io.BytesIO()
        if kind == "objects":
            trap = np.empty((), object)
            trap[()] = Trap(self.outside.mark)
            np.save(stream, trap, allow_pickle=True)
            return stream.getvalue(), "types"
        if kind == "sizes":
            return header(str({"descr": "<f4", "fortran_order": False, "shape": self.choose(SHAPES)})), kind
        if kind == "nesting":
            deep = "(" * 3000 + ")" * 3000
            words = self.choose(
                [deep, "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}", LONG]
            )
            return header(words), kind
        if values.dtype.kind == "U" and values.size:
            text = self.choose([self.json(str(values.reshape(-1)[0])).decode(errors="replace"), *ESCAPES, LONG])
            np.save(stream, np.asarray(text))
        elif kind == "types":
            shape = self.choose([values.shape[:-1], (*values.shape, 2), values.shape[::-1], (0,), ()])
            np.save(stream, np.zeros(shape, self.choose(["U3", "S2", "c16", "f2", "i1", "M8[s]", "f8", "b1"])))
        else:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.save(stream, np.full(values.shape, self.choose(VALUES)).astype(values.dtype))
        return stream.getvalue(), kind

    def store(self, path: Path) -> str:
        """One file of a Zarr store changed."""
        files = sorted(file for file in path.rglob("*") if file.is_file())
        described = [file for file in files if file.name in ("zarr.json", ".zarray", ".zattrs", ".zgroup")]
        kind = self.choose(["metadata"] * 6 + ["links", "links", "bytes", "missing", "names"])
        file = self.choose(described if kind == "metadata" else files)
        if kind == "metadata":
            return f"types: {self._metadata(file)}"
        if kind == "bytes":
            file.write_bytes(self.damaged(file.read_bytes()))
        elif kind == "missing":
            file.unlink()
        elif kind == "names":
            (path / ("‮" + "x" * 200)).mkdir()
            file.with_name("\x1b]0;x\x07").write_bytes(b"")
        else:
            file.unlink()
            where = self.choose(["pipe", "device", "socket", "outside", "folder"])
            if where == "pipe":
                os.mkfifo(file)
            elif where == "socket":
                with socket.socket(socket.AF_UNIX) as made:
                    os.chdir(file.parent)
                    made.bind(file.name)
                    os.chdir("/")
            elif where == "folder":
                file.mkdir()
            else:
                file.symlink_to("/dev/zero" if where == "device" else self.outside.folder / "secret.raw")
            return f"links: {where}"
        return kind

    def _metadata(self, file: Path) -> str:
        content = json.loads(file.read_text())
        changes: list[dict[str, Any]] = [
            {"chunks": [0, 16, 16]},
            {"chunks": [1 << 20, 1 << 20, 16]},
            {"shape": [1 << 40, 16, 16]},
            {"shape": []},
            {"shape": [6, 16, 16, 1]},
            {"shape": [True, None, "x"]},
            {"shape": [1e400, 16, 16]},
            {"dtype": "|O"},
            {"dtype": [["a", "<f4"]]},
            {"dtype": LONG},
            {"compressor": {"id": "pickle"}},
            {"compressor": {"id": "blosc", "cname": LONG, "clevel": -5}},
            {"filters": [{"id": "vlen-utf8"}]},
            {"filters": 3},
            {"fill_value": "x"},
            {"order": 5},
            {"zarr_format": self.plain()},
            {"dimension_separator": "../.."},
            {LONG: 1},
        ]
        if "shape" not in content or self.rng.random() < 0.3:
            file.write_bytes(self.json(file.read_text()))
            return "JSON"
        change = self.choose(changes)
        file.write_text(json.dumps({**content, **change}))
        return str(next(iter(change)))[:20]

    def yaml(self, path: Path) -> str:
        """Settings that are none."""
        laughs = "\n".join(
            ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20))]
        )
        texts: dict[str, Callable[[], bytes]] = {
            "types": lambda: b"bin: !!python/object/apply:os.system ['touch " + bytes(self.outside.mark) + b"']\n",
            "sizes": lambda: b"bin: 1" + b"0" * 6000 + b"\n",
            "sizes of references": laughs.encode,
            "nesting": lambda: b"bin: " + self.choose([b"[", b"{a: ", b"- "]) * 5000,
            "names": lambda: f"{self.choose([LONG, *ESCAPES])!r}: 1\n".encode(),
            "values": lambda: json.dumps({self.choose(["bin", "crop", "region"]): self.plain()}).encode(),
            "links": lambda: f"patterns_file: {self.outside.folder / 'secret.txt'}\n".encode(),
            "bytes": lambda: self.rng.bytes(200),
        }
        kind = self.choose(texts)
        path.write_bytes(texts[kind]())
        return kind


def header(words: str) -> bytes:
    """An NPY file of nothing but a header."""
    text = words.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text


def _datasets(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []
    file.visititems(lambda name, node: found.append((name, node)) if isinstance(node, h5py.Dataset) else None)
    return found
