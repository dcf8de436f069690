"""What a machine is: GPUs, memory, links; also planned ones."""
