"""From picture files to training batches: the loader against the usual pipeline of Pillow and torchvision.

Both sides decode the same JPEGs, resize them (bicubic, 256 x 128), mirror, pad, crop, normalise and erase, in one
process; the peer works picture by picture as research code does. Sides alternate, and the best of three counts.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from tapetum.core.types import Record
from tapetum.data.loader import TrainLoader
from tapetum.data.pictures import Cache, PictureOptions
from tapetum.data.sampler import read_sampling
from tapetum.data.transforms import read_operations

PICTURES = 640
BATCH = 64
SIZE = (256, 128)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 3


def write_pictures(folder: Path) -> list[Record]:
    """Person-sized JPEGs with some structure and noise."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(PICTURES):
        height = int(rng.integers(180, 360))
        shape = (height, int(height * rng.uniform(0.35, 0.5)))
        smooth = cv2.resize(
            rng.integers(0, 255, (12, 5, 3), dtype=np.uint8), shape[::-1], interpolation=cv2.INTER_CUBIC
        )
        noisy = np.clip(smooth + rng.normal(0, 6, (*shape, 3)), 0, 255).astype(np.uint8)
        path = folder / f"{number % 40:04d}_c1_{number:06d}.jpg"
        cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
        records.append(Record(path, number % 40, 1))
    return records


def build_ours(records: list[Record], cache: Cache, num_workers: int) -> TrainLoader:
    return TrainLoader(
        records,
        PictureOptions(SIZE, cache=cache, num_workers=num_workers),
        augment=read_operations(
            [{"name": "pad_crop", "pad": 10}, {"name": "flip"}, {"name": "erasing", "probability": 0.5}]
        ),
        sampler=read_sampling({"batch": BATCH}),
        seed=0,
    )


def walk_ours(loader: TrainLoader) -> None:
    """One epoch; a method normalises the batch itself, so that work is counted here as well."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    for batch in loader:
        (batch.images - mean) / deviation


def walk_peer(records: list[Record]) -> None:
    """One epoch of the usual pipeline."""
    change = transforms.Compose(
        [
            transforms.Resize(SIZE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.Pad(10),
            transforms.RandomCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
            transforms.RandomErasing(p=0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3)),
        ]
    )
    order = torch.randperm(len(records)).tolist()
    for start in range(0, len(order) - BATCH + 1, BATCH):
        torch.stack([change(Image.open(records[row].path).convert("RGB")) for row in order[start : start + BATCH]])


def best_rate(sides: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Pictures per second of each side, best of the rounds, the sides taking turns."""
    rates = dict.fromkeys(sides, 0.0)
    for _ in range(ROUNDS):
        for name, walk in sides.items():
            begun = time.perf_counter()
            walk()
            rates[name] = max(rates[name], PICTURES / (time.perf_counter() - begun))
    return rates


def run() -> list[dict]:
    """Rows for ``runs/bench.json``."""
    with tempfile.TemporaryDirectory() as folder:
        records = write_pictures(Path(folder))
        decoding = build_ours(records, "none", 0)
        threaded = build_ours(records, "none", 2)
        cached = build_ours(records, "memory", 0)
        rates = best_rate(
            {
                "peer": lambda: walk_peer(records),
                "decoding, 1 thread": lambda: walk_ours(decoding),
                "decoding, 2 threads": lambda: walk_ours(threaded),
                "from memory": lambda: walk_ours(cached),
            }
        )
    peer = rates.pop("peer")
    return [
        {
            "name": f"training pictures, {name} (peer: Pillow + torchvision, decoding, 1 process)",
            "ours": round(rate, 1),
            "peer": round(peer, 1),
            "ratio": round(rate / peer, 2),
            "unit": "pictures/s",
        }
        for name, rate in rates.items()
    ]


if __name__ == "__main__":
    for row in run():
        print(row)
