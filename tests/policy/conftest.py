"""One torch thread, as in `ace train`: on a busy machine the threads of small networks wait for each other."""

import torch

torch.set_num_threads(1)
