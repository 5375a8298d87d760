"""The image server of ``offloop demo``: pictures in, smaller pictures out.

It shows what the framework is for. Encoding an image takes tens to thousands of
milliseconds of processor time; the process that answers HTTP spends none of them, so it
answers everybody else meanwhile.

    command ─▶ server ─▶ web ─▶ endpoints    orders, upload, variants      the HTTP
                          │        └─▶ making ══ jobs ═══╗                 process:
                          └─▶ watching, controls         ║                 no pixel
    - - - - - - - - - - - - - process border - - - - - - ╫ - - - - - - - - - - - - - -
                                                         ╚═▶ images        workers
                                       source ─▶ arrange ─▶ writers        (or samples)

`recipe` is what both sides speak of, and `problems` what can go wrong; `settings` are
the limits, and `service` is what all requests share.
"""
