"""The thin helper package of the unlearning book: what every notebook would otherwise repeat.

Importing it is free: torch, pandas and Jupyter are imported by the modules that need them,
so that building the site from published rows never loads torch.
"""

from pathlib import Path

__version__ = "0.1.0"

#: The project's folder; every path is resolved from here, wherever the kernel starts.
ROOT = Path(__file__).resolve().parents[1]
