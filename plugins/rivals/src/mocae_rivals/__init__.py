"""Rivals for mocae: mixtures of other papers, merge methods beyond exact sums, and training without gradients."""

__all__: list[str] = []
