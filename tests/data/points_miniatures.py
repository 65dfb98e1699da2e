"""ModelNet40 and ShapeNet-part in both of their layouts, tiny: the same files, names and datasets as published.

All functions write into a folder and return what was written: rows of (points, label, parts) for each list.
"""

import json

import numpy as np

CLASSES = ("airplane", "flower_pot", "xbox")
CATEGORIES = {"Airplane": "02691156", "Bag": "02773838", "Mug": "03797390"}
PARTS = {"Airplane": (0, 1, 2, 3), "Bag": (4, 5), "Mug": (36, 37)}


def cloud(seed, points, parts=None):
    """``(points, 6)`` float32, coordinates and unit normals, and the part of each point: the sign of x tells it."""
    rng = np.random.default_rng(seed)
    xyz, normals = rng.normal(size=(2, points, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    own = None if parts is None else np.where(xyz[:, 0] > 0, parts[1], parts[0]).astype(np.uint8)
    return np.concatenate((xyz, normals), 1), own


def hdf5(path, rows):
    """One file of (cloud, label, parts) rows, compressed in blocks as the published ones."""
    import h5py

    points = np.stack([xyz for xyz, _, _ in rows])
    with h5py.File(path, "w") as file:
        packed = {"compression": "gzip", "compression_opts": 4}
        file.create_dataset("data", data=points[..., :3], **packed)
        file.create_dataset("normal", data=points[..., 3:], **packed)
        file.create_dataset("label", data=np.array([[label] for _, label, _ in rows], np.uint8), **packed)
        if rows[0][2] is not None:
            file.create_dataset("pid", data=np.stack([parts for _, _, parts in rows]), **packed)


def modelnet_hdf5(folder, sizes=((5, 3), (4,)), points=40):
    home = folder / "modelnet40_ply_hdf5_2048"
    home.mkdir(parents=True)
    (home / "shape_names.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    written = {}
    for side, files in zip(("train", "test"), sizes, strict=True):
        names, written[side] = [], []
        for number, count in enumerate(files):
            rows = [(*cloud((len(side), number, n), points)[:1], n % len(CLASSES), None) for n in range(count)]
            names.append(f"ply_data_{side}{number}.h5")
            hdf5(home / names[-1], rows)
            written[side] += rows
        # With the path of its authors' machine in front, as published.
        (home / f"{side}_files.txt").write_text("".join(f"data/{home.name}/{name}\n" for name in names))
    return written


def modelnet_text(folder, counts=(2, 1), points=40):
    home = folder / "modelnet40_normal_resampled"
    home.mkdir(parents=True)
    (home / "modelnet40_shape_names.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    written = {}
    for side, count in zip(("train", "test"), counts, strict=True):
        names, written[side] = [], []
        for label, kind in enumerate(CLASSES):
            (home / kind).mkdir(exist_ok=True)
            for n in range(count):
                xyz, _ = cloud((7, len(side), label, n), points)
                names.append(f"{kind}_{n + (100 if side == 'test' else 1):04d}")
                np.savetxt(home / kind / f"{names[-1]}.txt", xyz, "%.6f", ",")
                written[side].append((xyz, label, None))
        (home / f"modelnet40_{side}.txt").write_text("\n".join(names) + "\n")
    return written


def shapenet_hdf5(folder, sizes=((4,), (2,), (3,)), points=40):
    home = folder / "hdf5_data"
    home.mkdir(parents=True)
    (home / "all_object_categories.txt").write_text("".join(f"{a}\t{b}\n" for a, b in CATEGORIES.items()))
    # Of three categories, so that the numbers of the table are those of its rows.
    own, first = {}, 0
    for name, parts in PARTS.items():
        own[name] = tuple(range(first, first + len(parts)))
        first += len(parts)
    table = [[CATEGORIES[name], n] for name in own for n in range(len(own[name]))]
    (home / "overallid_to_catid_partid.json").write_text(json.dumps(table))
    written = {}
    for side, files in zip(("train", "val", "test"), sizes, strict=True):
        names, written[side] = [], []
        for number, count in enumerate(files):
            rows = []
            for n in range(count):
                label = n % len(own)
                xyz, parts = cloud((11, len(side), number, n), points, own[list(own)[label]])
                rows.append((xyz, label, parts))
            names.append(f"ply_data_{side}{number}.h5")
            hdf5(home / names[-1], rows)
            written[side] += rows
        (home / f"{side}_hdf5_file_list.txt").write_text("".join(f"{name}\n" for name in names))
    return written


def shapenet_text(folder, counts=(2, 1, 1), points=40):
    home = folder / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    (home / "train_test_split").mkdir(parents=True)
    (home / "synsetoffset2category.txt").write_text("".join(f"{a}\t{b}\n" for a, b in CATEGORIES.items()))
    written = {}
    for side, count in zip(("train", "val", "test"), counts, strict=True):
        names, written[side] = [], []
        for label, (name, synset) in enumerate(CATEGORIES.items()):
            (home / synset).mkdir(exist_ok=True)
            for n in range(count):
                xyz, parts = cloud((13, len(side), label, n), points, PARTS[name])
                own = f"{side}{n}a04e3eab45ca15dd86060f189eb133"
                rows = np.concatenate((xyz, parts[:, None]), 1)
                np.savetxt(home / synset / f"{own}.txt", rows, "%.6f", " ")
                names.append(f"shape_data/{synset}/{own}")
                written[side].append((xyz, label, parts))
        (home / "train_test_split" / f"shuffled_{side}_file_list.json").write_text(json.dumps(names))
    return written


WRITE = {
    "modelnet40 hdf5": modelnet_hdf5,
    "modelnet40 text": modelnet_text,
    "shapenet-part hdf5": shapenet_hdf5,
    "shapenet-part text": shapenet_text,
}
