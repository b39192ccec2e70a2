"""``python -m tapetum`` and ``torchrun -m tapetum``: the command line."""

from tapetum.cli.main import start

if __name__ == "__main__":
    start()
