"""A process that writes to a gallery until it is killed, and tells what was acknowledged, one line each."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from gallery_rows import MODEL, crop_bytes, some_rows, some_vectors
from tapetum.core.atomic import make_folder, write_bytes
from tapetum.gallery.filters import Among
from tapetum.gallery.lance import connect
from tapetum.gallery.opening import open_gallery


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def main() -> None:
    folder = Path(sys.argv[1])
    vectors = some_vectors(20_000)
    connect(folder.parent)  # imports
    say("ready")
    first = int(sys.stdin.readline())
    store = open_gallery(folder, MODEL)
    for turn in range(1_000_000):
        say(f"try-store {first} {first + 12}")
        rows = []
        for row in some_rows(12, first):
            crop = f"crops/{row.sighting.camera}/{row.sighting.id}.jpg"
            make_folder((folder / crop).parent)
            write_bytes(folder / crop, crop_bytes(row.sighting.id))
            rows.append(replace(row, sighting=replace(row.sighting, crop=crop)))
        store.upsert(rows, vectors[first : first + 12])
        say(f"stored {first} {first + 12}")
        if turn % 2:
            say(f"try-erase {first + 2} {first + 6}")
            store.delete(Among("frame", tuple(float(number) for number in range(first + 2, first + 6))))
            say(f"erased {first + 2} {first + 6}")
        if turn % 5 == 4:
            store.compact()
        first += 12


if __name__ == "__main__":
    main()
