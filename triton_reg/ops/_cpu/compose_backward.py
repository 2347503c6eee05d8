"""Gradients of two displacements, one after the other."""

from triton_reg.ops._cpu.warp_backward import warp_backward


def compose_backward(first, second, gradient):
    """With respect to ``first`` and ``second`` of ``first(x) + second(x + first(x))``.

    All are ``[B, 3, D, H, W]``, ``gradient`` with respect to the sum.
    """
    of_second, of_first = warp_backward(second, first, gradient)
    of_first += gradient
    return of_first, of_second
