"""Tocsin: every signal scored with reasons, grouped into incidents, acted on, and recorded."""

__version__ = "0.1.0"
