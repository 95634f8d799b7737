"""Plain single-device `nn.Module`s; their state_dict keys are those of the diffusers classes they export to."""
