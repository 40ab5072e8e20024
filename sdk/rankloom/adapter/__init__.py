"""An adapter's folder as a value: its config, its targets and their ranks and scales."""
