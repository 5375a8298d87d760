"""The work of the image servers: shrink a photograph and encode it, with Pillow."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

from PIL import Image, ImageOps

MEDIA = "image/webp"


def encode(data: bytes, width: int, quality: int) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (width, width))  # a JPEG may be read at a half, a quarter
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((width, width), Image.Resampling.LANCZOS, reducing_gap=None)
        file = io.BytesIO()
        upright.save(file, "WEBP", quality=quality)
    return file.getvalue()


def main() -> None:
    """Encode one photograph again and again; print how often, when told to end.

    python benchmarks/image_job.py PHOTO SECONDS
    """
    data, seconds = Path(sys.argv[1]).read_bytes(), float(sys.argv[2])
    encode(data, 800, 80)
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        encode(data, 800, 80)
        done += 1
    print(done / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
