"""A chain of launches as one CUDA graph: a hundred launches for the price of one."""

from collections.abc import Callable

import torch
from torch import Tensor

Outputs = tuple[Tensor, Tensor]


class Captured:
    """What ``launch`` does, recorded once and replayed.

    It must read and write the same memory each time and never wait for the GPU. The first run, on
    a stream of its own, compiles and loads the kernels, which cannot be done while recording.
    """

    def __init__(self, launch: Callable[[], Outputs], what: str) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            launch()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        try:
            # other threads of the process may go on allocating meanwhile
            mode = "thread_local"
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode=mode):
                self._outputs = launch()
        except torch.OutOfMemoryError:
            raise  # whoever asked may do with less
        except RuntimeError as error:
            raise RuntimeError(f"{what} could not be captured as a CUDA graph: {error}") from error

    def __call__(self) -> Outputs:
        """Replay; the outputs lie where they always lie."""
        self._graph.replay()
        return self._outputs
