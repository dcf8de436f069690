"""Load what runs have published, with transformers and PEFT alone, and say what it predicts.

    python reload.py ASKED.json ANSWERS.pt

ASKED: {"models": {name: [folder, folder of its base]}, "ids": token ids}. ANSWERS: {name: logits}.
"""

import json
import runpy
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def logits(folder, base, ids):
    """Of a whole model, or of an adapter on its base."""
    is_adapter = (Path(folder) / "adapter_config.json").exists()
    loader = next(iter(Path(folder).glob("load_*.py")), None)
    model = AutoModelForCausalLM.from_pretrained(
        base if is_adapter or loader else folder,
        dtype=torch.float32,
        local_files_only=True,
    )
    if loader:  # published beside the weights
        model = runpy.run_path(str(loader))["load"](model, folder)
    if is_adapter:
        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits[:, -ids.shape[1] :]


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = json.loads(Path(sys.argv[1]).read_text())
    tokens = torch.tensor(asked["ids"])
    found = {name: logits(*folders, tokens) for name, folders in asked["models"].items()}
    torch.save(found, sys.argv[2])
