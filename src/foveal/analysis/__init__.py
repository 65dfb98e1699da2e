"""What things cost, counted and measured; returns plain records and draws nothing."""

from foveal.analysis.count import Count, ModuleCount, count
from foveal.analysis.memory import peak_memory
from foveal.analysis.models import Measurement, measure_models
from foveal.analysis.timing import Timing, interleaved

__all__ = [
    "Count",
    "Measurement",
    "ModuleCount",
    "Timing",
    "count",
    "interleaved",
    "measure_models",
    "peak_memory",
]
