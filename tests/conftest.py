"""What every room's tests may use."""

import os

# Triton decides when it is imported whether kernels run on the CPU.
os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = ["servers"]
