"""The version of ferbatch: written here alone."""

__version__ = "0.1.0"
