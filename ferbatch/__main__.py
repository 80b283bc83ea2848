"""python -m ferbatch"""

from __future__ import annotations

from ferbatch.cli import main

if __name__ == "__main__":
    main()
