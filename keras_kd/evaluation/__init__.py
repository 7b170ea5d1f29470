"""Comparison of models as a table, plots and a page."""

from keras_kd._lazy import publish
from keras_kd.evaluation import plots
from keras_kd.evaluation.compare import compare
from keras_kd.evaluation.comparison import Column, Comparison, Disagreement, Measurement
from keras_kd.evaluation.report import Figure, Highlight, Page, default_page, save_report

__all__ = [
    "Column",
    "Comparison",
    "Disagreement",
    "Figure",
    "Highlight",
    "Measurement",
    "Page",
    "compare",
    "default_page",
    "plots",
    "save_report",
]

publish(__name__, __all__)
