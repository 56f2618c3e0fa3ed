"""The version. Layer: the lowest; imports nothing of this package."""

__version__ = "0.1.0"
