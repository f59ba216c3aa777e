"""`python -m emsqrt.cli`."""

from emsqrt.cli import entry

if __name__ == "__main__":
    entry()
