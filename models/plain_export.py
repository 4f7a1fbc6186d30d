"""A quality LMM as a plain transformers folder: what `transformers serve`, vLLM and other people's code load without this project.

Images alone: transformers' InternVL has no motion extractor, so a clip would be key frames without a motion stream, in
another layout than the model was trained with; the exported template refuses videos.
"""  # noqa: E501 - one entry of README's tree

from pathlib import Path
from typing import Any, Final

from transformers import GenerationConfig, InternVLProcessor, InternVLVideoProcessor, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor

from models.checkpoint import save_internvl
from models.compatibility import OFF
from models.errors import ModelError
from models.quality_lmm import QualityLMM
from models.tokenizer import END_OF_TEXT, IMAGE_CONTEXT, IMAGE_END, IMAGE_START, TURN_END
from models.vision_encoder import IMAGENET_MEAN, IMAGENET_STD

_NAMES: Final = {
    "start_image_token": IMAGE_START,
    "end_image_token": IMAGE_END,
    "context_image_token": IMAGE_CONTEXT,
    "video_token": END_OF_TEXT,
}
"""What transformers' processor asks a tokenizer for; no token stands for a video, and the template refuses them."""

_TEMPLATE: Final = """\
{%- if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n' + SYSTEM + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}
{%- for part in message['content'] %}
{%- if part['type'] in ('image', 'image_url') %}{{ '<IMG_CONTEXT>\\n' }}
{%- elif part['type'] == 'text' %}{{ part['text'] }}
{%- else %}{{ raise_exception('this model was exported for images and text: no ' + part['type']) }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""The project's order of tokens (docs/models.md): medium first, then the question."""


def export_plain(model: QualityLMM, folder: Path) -> None:
    """Write weights, tokenizer, processor and chat template; of an image the logits are those of ``model``.

    Raises:
        ModelError: plain transformers cannot see images as this model does.
    """
    spec = model.spec
    if model.question != "empty":
        msg = f"this model was trained with question: {model.question}; a server would leave its questions out"
        raise ModelError(msg)
    if spec.tiling != "dynamic" or spec.compatibility != OFF:
        msg = (
            f"tiles of {spec.tiling} tiling{'' if spec.compatibility == OFF else ' with departures'} are made by this "
            "project alone: plain transformers would show the model other tiles than it knows"
        )
        raise ModelError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    save_internvl(model.internvl, folder)
    ends: dict[str, Any] = {"eos_token_id": model.tokenizer.convert_tokens_to_ids(TURN_END)}
    GenerationConfig(pad_token_id=model.tokenizer.pad_token_id, do_sample=False, **ends).save_pretrained(folder)
    _processor(model).save_pretrained(folder)


def _processor(model: QualityLMM) -> InternVLProcessor:
    side = {"height": model.spec.tile_px, "width": model.spec.tile_px}
    look: dict[str, Any] = {"size": side, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    images = GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=model.spec.max_tiles, **look)
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=model.tokenizer.backend_tokenizer,
        eos_token=model.tokenizer.eos_token,
        pad_token=model.tokenizer.pad_token,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=_NAMES,
    )
    return InternVLProcessor(
        images,
        tokenizer,
        InternVLVideoProcessor(**look),
        image_seq_length=_tokens_of_a_tile(model),
        chat_template=_TEMPLATE.replace("SYSTEM", repr(model.system)),
    )


def _tokens_of_a_tile(model: QualityLMM) -> int:
    config: Any = model.internvl.config
    patches = model.spec.tile_px // int(config.vision_config.patch_size[0])
    return int(patches * config.downsample_ratio) ** 2
