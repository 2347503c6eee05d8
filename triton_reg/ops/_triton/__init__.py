"""Triton kernels behind the operators of ``triton_reg.ops``, for tensors on a GPU.

A kernel's definition is the plain-torch reference of the operator it serves. Inside, volumes are
flat (``N = D H W`` voxels, the last axis fastest), features hold their channels last, and every
launch takes a whole batch of pairs: the last axis of the launch grid is the pair.
"""

try:
    import triton  # noqa: F401
except ImportError as error:
    raise ImportError("tensors on a GPU need triton: pip install triton") from error
