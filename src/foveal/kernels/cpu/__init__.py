"""Kernels in C++ for CPUs, on torch's stable interface; ``WHY_NOT`` says why they cannot run here, or is None."""

from foveal.kernels.cpu.load import WHY_NOT, instruction_set

__all__ = ["WHY_NOT", "instruction_set"]
