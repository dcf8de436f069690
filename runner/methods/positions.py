"""A model's rotary positions scaled as a recipe says, and said so in what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedModel

from advisor.positions import Rope
from profiles.errors import ExitCode, UserError


def scaled(model_dir: Path, rope: Rope, **head: Any) -> dict[str, Any]:
    """from_pretrained's `config` of the model in a folder; UserError if it has no such positions.

    `head`: options of a score head, which the config takes.
    """
    config = AutoConfig.from_pretrained(
        model_dir, trust_remote_code=False, local_files_only=True, **head
    )
    inner = config.get_text_config()
    own = getattr(inner, "rope_parameters", None)
    if not own or "rope_type" not in own or getattr(inner, "alibi", False):
        raise UserError(
            f"{model_dir.name} has no rotary positions that could be scaled",
            why="its config has no rope_parameters, or others for each kind of its layers",
            do="leave model.rope_type, model.rope_factor and model.rope_theta out",
            where="model.rope_type",
            code=ExitCode.BAD_RECIPE,
        )
    inner.rope_parameters = rope.parameters(own, inner.max_position_embeddings)
    inner.max_position_embeddings = rope.configured_positions(inner.max_position_embeddings)
    return {"config": config}


def publish(model: Any, folder: Path) -> None:
    """Beside an adapter, the config that its base must be loaded with."""
    is_whole = isinstance(model, PreTrainedModel) and "save_pretrained" not in vars(model)
    if getattr(model, "has_scaled_positions", False) and not is_whole:
        model.config.save_pretrained(folder)
