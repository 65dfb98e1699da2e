"""Kernels in Triton for NVIDIA GPUs; ``load`` says why they cannot run a call and what was never measured.

Importing this package, or the operators in it, does not import Triton; launching a kernel does.
"""
