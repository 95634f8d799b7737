"""What a training exports through Ray, by the names that Prometheus sees.

Ray puts its own name before a gauge's or a counter's. A counter's ends in _total in any case: Ray adds what is lacking.
"""

GAUGES = tuple(
    f"ray_dalle2_{name}"
    for name in (
        "loss", "step", "num_steps", "samples_per_second", "goodput", "seconds_per_step", "data_wait_seconds",
        "data_wait_max_seconds", "checkpoint_stall_seconds", "straggler_ratio", "faulty_samples",
    )
)  # fmt: skip
COUNTERS = tuple(f"ray_dalle2_{name}_total" for name in ("skipped_steps", "restarts", "loss_spikes"))
