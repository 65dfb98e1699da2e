"""Evaluations in PyTorch alone, for every device."""
