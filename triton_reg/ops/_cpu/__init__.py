"""Compiled CPU kernels, one operation a file; the only place that imports numba.

Arrays in and out are C-contiguous float32 numpy arrays. Each kernel runs on one thread, releases
the interpreter lock and is cached on disk; several pairs at once are several threads or processes.
numba's cache looks at the file of a kernel only: after an edit of a helper that other files
inline (``arithmetic.py``), remove ``__pycache__``.
"""

try:
    import numba  # noqa: F401
except ImportError as error:
    raise ImportError("tensors on the CPU need numba: pip install numba") from error
