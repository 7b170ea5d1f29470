"""What the numbers mean: models measured side by side, as a table, plots and a page."""

from keras_kd.evaluation import metrics, plots
from keras_kd.evaluation.compare import compare
from keras_kd.evaluation.comparison import Comparison, Measurement
from keras_kd.evaluation.report import Figure, Highlight, Page

__all__ = [
    "Comparison",
    "Figure",
    "Highlight",
    "Measurement",
    "Page",
    "compare",
    "metrics",
    "plots",
]
