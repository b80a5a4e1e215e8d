"""NVIDIA GPUs through torch: the device, its sample loop, and what watches the GPU."""
