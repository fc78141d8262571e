"""Names that users give to figures and their formats; apart, so that the command line loads nothing else."""

from typing import Literal

FigureName = Literal["fitness", "ends", "survival", "drift", "tree", "behaviour"]
FigureFormat = Literal["svg", "png", "csv"]
