"""Diffusion as pure functions on tensors: schedule, process, prediction, objective, guidance, samplers."""
