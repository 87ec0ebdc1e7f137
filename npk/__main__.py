"""``python -m npk``: the `npk` command."""

from npk.cli import main

if __name__ == "__main__":
    main()
