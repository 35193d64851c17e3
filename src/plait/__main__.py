"""``python -m plait`` is the command ``plait`` (and what ``torchrun -m plait`` runs)."""

from plait.cli.main import main

if __name__ == "__main__":
    main()
