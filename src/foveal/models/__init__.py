"""Backbones of the papers and the one table of where each mechanism goes; importing this registers them in timm."""

from foveal.models import augmented as _augmented  # noqa: F401  registers its networks
from foveal.models import eamlp as _eamlp  # noqa: F401  registers its networks
from foveal.models import efficient as _efficient  # noqa: F401  registers its networks
from foveal.models import explicit as _explicit  # noqa: F401  registers its networks
from foveal.models import gates as _gates  # noqa: F401  registers its networks
from foveal.models import local as _local  # noqa: F401  registers its networks
from foveal.models import residual as _residual  # noqa: F401  registers its backbones
from foveal.models.configuration import Configuration
from foveal.models.hub import HubModel
from foveal.models.mechanisms import MECHANISMS, Mechanism, with_attention
from foveal.models.weights import load, save

__all__ = ["MECHANISMS", "Configuration", "HubModel", "Mechanism", "load", "save", "with_attention"]
