"""One thread for torch: the bits that tests compare are those that workers compute."""

import torch

torch.set_num_threads(1)
