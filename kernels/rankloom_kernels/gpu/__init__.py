"""Triton kernels, one file each, and what prepares their launches.

Only files with a kernel, and :mod:`rankloom_kernels.gpu.launch`, import Triton; what needs them
imports them inside functions.
"""
