"""Grafting: put any layer into any model, at named places, and take it out again."""

from foveal.graft.place import Blend, OneInput, Tokens
from foveal.graft.record import Graft, Row
from foveal.graft.site import Site
from foveal.graft.verbs import augment_, insert_, replace_

__all__ = ["Blend", "Graft", "OneInput", "Row", "Site", "Tokens", "augment_", "insert_", "replace_"]
