"""What ``python -m offloop`` runs: the command line."""

from __future__ import annotations

from offloop.cli import main

if __name__ == "__main__":
    main()
