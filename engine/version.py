"""The version of the program, where everything may read it."""

__version__ = "0.1.0"
