"""A safetensors file as a value: its header, checked, and its values as numpy arrays."""
