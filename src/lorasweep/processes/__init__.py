"""One run in several processes, a GPU each: what they are told by torchrun, how they speak, and how they end."""
