"""Load an adapter with PEFT alone, as its folder says, and say what it predicts of a text.

python reload_auto.py FOLDER TEXT ANSWER.pt
"""

import sys

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, text, answer = sys.argv[1:]
    model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder).encode(text)])
    with torch.no_grad():
        torch.save(model.eval()(input_ids=ids).logits, answer)
