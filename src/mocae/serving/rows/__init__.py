"""The answers that are being written: rows of one batch, their keys and values, their next tokens and their text."""

__all__: list[str] = []
