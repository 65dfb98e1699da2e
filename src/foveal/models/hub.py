"""Models on the Hugging Face hub: a folder of ``model.safetensors`` and ``config.json`` that timm reads as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from torch import nn

from foveal.models.configuration import Configuration
from foveal.models.weights import as_safetensors, inner, load, write_whole

WEIGHTS, CONFIGURATION = "model.safetensors", "config.json"


class HubModel(nn.Module, PyTorchModelHubMixin, library_name="foveal"):  # type: ignore[call-arg, misc]
    """A model of ``timm.create_model`` with the hub's methods; the model itself is ``.model``.

    ``HubModel(model).push_to_hub("me/mine")`` and ``HubModel.from_pretrained("me/mine")``. The file in the folder is
    one of ``foveal.models.save``, in the keys of the plain model, so ``foveal.models.load`` reads it and so does
    ``timm.create_model("hf-hub:me/mine", pretrained=True)`` where ``foveal.models`` is imported.

    Args:
        model: as timm made it; see ``foveal.models.save``.
        metadata: anything that JSON can hold, kept beside the weights.
    """

    def __init__(self, model: nn.Module, metadata: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model, self.metadata = model, dict(metadata or {})

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.model(*args, **options)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """That of the plain model."""
        return self.model.state_dict(*args, **options)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """That of the plain model."""
        return self.model.load_state_dict(*args, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        model = inner(self.model)
        made = Configuration.of(model, **self.metadata)
        write_whole(save_directory / WEIGHTS, as_safetensors(model, made))
        write_whole(save_directory / CONFIGURATION, made.text().encode())

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: Any,
    ) -> HubModel:
        """``options`` are those of ``foveal.models.load``."""
        # The first comes from config.json, the others from releases of the hub's client before 1.0.
        for other in ("metadata", "proxies", "resume_download"):
            options.pop(other, None)
        if Path(model_id).is_dir():
            path = Path(model_id) / WEIGHTS
        else:
            path = Path(
                hf_hub_download(
                    model_id,
                    WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        made = Configuration.read(path)
        return cls(load(path, **options), made.metadata if made else None).eval()
