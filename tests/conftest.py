"""What every room's tests may use."""

import os

from hypothesis import settings

# Triton decides when it is imported whether kernels run on the CPU.
os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes depends on what else the machine does; it shows no mistake.
settings.register_profile("rankloom", deadline=None)
settings.load_profile("rankloom")

pytest_plugins = ["servers"]
