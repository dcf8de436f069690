"""A dense model made into a mixture of experts that computes the same (sparse upcycling).

`configuration` says what the mixture is, `tensors` where each of its weights comes from, `making`
writes it. Weights are copied as bytes, so neither torch nor much memory is needed.
"""
