"""The mathematics: one operation a mechanism, with its definition and its fast exact evaluations."""

from foveal.functional.dot_product import dot_product_attention
from foveal.functional.efficient import efficient_attention
from foveal.functional.explicit import explicit_attention
from foveal.functional.external import external_attention
from foveal.functional.local import local_attention

__all__ = [
    "dot_product_attention",
    "efficient_attention",
    "explicit_attention",
    "external_attention",
    "local_attention",
]
