"""Index photographs, show the index, query it, and check that the answers are right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from demo.photographs import find_photographs, variants

HERE = Path(".demo")  # recreated each time, in the folder that make runs in
PHOTOS = HERE / "photos"
COLLECTION = HERE / "collection"
QUERY_ONLY = "motorcycle_left.png"  # the other eye of the stereo pair motorcycle_right.png


def main() -> None:
    """Run the demonstration; exit with 1 if an answer is wrong."""
    photographs = find_photographs()
    print(f"\nGathering photographs into {PHOTOS} ...")
    made = _gather(photographs)
    print(f"{len(photographs) - 1} photographs, {made} variants")

    _imgsearch("index", str(PHOTOS), "--nlist", "8")
    _imgsearch("info")

    print("\nA part of a photograph, cut out just now and not in the collection:")
    crop = HERE / "crop_of_chelsea.jpg"
    with Image.open(PHOTOS / "chelsea.png") as image:
        width, height = image.size
        box = (width // 5, height // 6, width * 9 // 10, height * 9 // 10)
        image.crop(box).convert("RGB").save(crop)
    _imgsearch("query", str(crop), "-k", "5")
    _expect(crop, "chelsea")

    print("\nThe left image of a stereo pair; only the right one is in the collection:")
    left = next(path for path in photographs if path.name == QUERY_ONLY)
    shutil.copy(left, HERE)
    _imgsearch("query", str(HERE / QUERY_ONLY), "-k", "5")
    _expect(HERE / QUERY_ONLY, "motorcycle_right")

    print(
        "\nBoth found. Now your own pictures:\n"
        "\n  .venv/bin/imgsearch index ~/Pictures"
        "\n  .venv/bin/imgsearch query path/to/an/image.jpg"
        "\n  .venv/bin/imgsearch serve --open\n"
    )


def _gather(photographs: list[Path]) -> int:
    """Copy the photographs, write the variants, and return how many variants there are."""
    shutil.rmtree(HERE, ignore_errors=True)
    PHOTOS.mkdir(parents=True)
    made = 0
    for path in photographs:
        if path.name == QUERY_ONLY:
            continue
        shutil.copy(path, PHOTOS)
        with Image.open(path) as image:
            for word, variant in variants(image.convert("RGB")):
                variant.save(PHOTOS / f"{path.stem}-{word}.jpg", quality=85)
                made += 1
    return made


def _imgsearch(*arguments: str) -> None:
    """Show a command and run it."""
    print(f"\n$ imgsearch -c {COLLECTION} {' '.join(arguments)}", flush=True)
    subprocess.run(_command(*arguments), check=True)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imgsearch", "-c", str(COLLECTION), *arguments]


def _expect(query: Path, photograph: str) -> None:
    """Check that the best hit is `photograph` or a variant of it."""
    answer = subprocess.run(
        _command("query", str(query), "-k", "1", "--json"), check=True, capture_output=True
    )
    best = Path(json.loads(answer.stdout)["hits"][0]["path"]).stem
    if best.partition("-")[0] != photograph:
        sys.exit(f"make demo: {query} found {best}, not {photograph}: this is a bug, report it")


if __name__ == "__main__":
    main()
