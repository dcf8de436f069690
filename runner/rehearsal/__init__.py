"""A training step on tensors without memory: what `runner.rehearse` is made of.

storages counts bytes; fake_tensor, fake_mode, kernels and autocast_rules make tensors that pass for
tensors on a GPU, cuda_patches tells libraries that there is one; stand_ins and quantized are what
runs there in place of torch's own; setup, fake_model, adapters and optimizers build what a recipe's
run would have; allocation_sites says what was alive where. client asks for a rehearsal in a process
of its own, and results is what it gets: these two load no torch.
"""
