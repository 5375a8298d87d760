"""The image server of ``offloop demo``: pictures in, smaller pictures out.

It shows what the framework is for. Encoding an image takes tens to thousands of
milliseconds of processor time; the process that answers HTTP spends none of them, so it
answers everybody else meanwhile.

    command ─▶ server ─▶ app ─▶ upload, recipe            the HTTP process: no pixel
                          │
                          └─▶ jobs  ═══ process border ═══▶ images, samples   workers

`problems` holds what can go wrong, for both sides; `settings` the limits.
"""
