"""python -m ferbatch"""

from ferbatch.cli import main

if __name__ == "__main__":
    main()
