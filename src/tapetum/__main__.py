"""``python -m tapetum`` and ``torchrun -m tapetum``: the command line."""

from tapetum.cli.main import run

if __name__ == "__main__":
    run()
