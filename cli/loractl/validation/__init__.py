"""What ``loractl validate`` is made of: its settings, its runs, its outputs."""
