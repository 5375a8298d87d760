"""Which decoders and encoders there are: a short list, and optional ones. Workers only.

Importing a plugin registers its format. Left to itself, Pillow would import forty of
them at the first image that it does not know, some of which start other programs.
"""

from __future__ import annotations

from contextlib import suppress

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    QoiImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

__all__ = ["READERS"]

#: formats that are read; whatever else a file is, it is refused
READERS: list[str] = [
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        AvifImagePlugin.AvifImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        IcoImagePlugin.IcoImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
        QoiImagePlugin.QoiImageFile,
    )
]

# Codecs would start a thread for each core; the cores belong to the other workers.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

with suppress(ImportError):  # HEIC
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener(thumbnails=False)
    READERS.append("HEIF")

with suppress(ImportError):  # JPEG XL
    from pillow_jxl import JpegXLImagePlugin  # importing it registers it

    JpegXLImagePlugin.DECODE_THREADS = 0  # none beside the one that calls
    READERS.append("JXL")
