"""A training step on tensors without memory: what `runner.rehearse` is made of.

storages counts bytes; phantom, phantoms, kernels and casts make tensors that pass for tensors on a
GPU; stand_ins and quantized are what runs there in place of torch's own; understudy, adapters and
optimizers build what a recipe's run would have; places says what was alive where. client asks for
a rehearsal in a process of its own, and answers is what it gets: these two load no torch.
"""
