"""The engine trl: the same rewards, questions and rejects; a real run on a tiny Qwen2.5-VL where trl is installed."""

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from models.rewards import KindWeights, RewardRule, Score
from tasks.errors import ConfigError, StageError
from tasks.instructions import ImportedSource
from tasks.records import REJECTS
from tasks.shards import read_table
from tasks.stage import Place, build_config
from tasks.training import teach, teach_trl
from tasks.training.config import TrainingConfig
from tasks.training.teach_trl import history_of, messages_of, reward_functions, trl_arguments
from tasks.training.teaching_tasks import TeachingTask

CHECKOUT = Path(__file__).resolve().parents[3]
needs_trl = pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="trl is not installed")


def paper() -> teach.Config:
    """The profile ``paper`` over the embedded one."""
    section = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["teach"]
    over = yaml.safe_load((CHECKOUT / "infra/profiles/paper.yaml").read_text())["teach"]
    return build_config(teach.Config, "teach", {**section, **over, "training": section["training"] | over["training"],
                                                "rewards": section["rewards"] | over["rewards"]})  # fmt: skip


def lesson(config: teach.Config) -> teach_trl.Lesson:
    return teach_trl.Lesson([], {}, config.drawing, config.rewards, config.objective, config.training, config.trl)


def test_the_paper_profile_is_q_insights_recipe():
    found = trl_arguments(lesson(paper()), Path("out"))
    wanted = {
        "num_generations": 8, "beta": 1e-3, "epsilon": 0.2, "learning_rate": 1e-6, "temperature": 1.0,
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_completion_length": 256,
        "num_iterations": 1, "bf16": True, "loss_type": "grpo", "scale_rewards": "group",
        "gradient_checkpointing": False, "max_steps": 10 * 14000 // 16,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert found["deepspeed"]["zero_optimization"]["stage"] == 3
    assert found["model_init_kwargs"] == {"attn_implementation": "flash_attention_2", "dtype": "bfloat16"}
    assert paper().trl.model == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_rewards_are_ours_weighted_and_none_where_another_kind_is_asked():
    tasks = {"a": TeachingTask("a", "x", ("m",), False, Score(0.5))}
    one = KindWeights(1.0, 1.0)
    rule = RewardRule("free", "step", 0.35, KindWeights(2.0, 0.5), one, one)
    functions = {function.__name__: function for function in reward_functions(tasks, rule)}
    said = '<think>x</think><answer>{"rating": 3.1}</answer>'
    completions = [[{"role": "assistant", "content": said}], [{"role": "assistant", "content": [{"text": "no"}]}], said]
    found = {name: one(completions=completions, task_id=["a"] * 3, other=1) for name, one in functions.items()}
    assert found["score"] == [2.0, 0.0, 2.0]
    assert found["degradation"] == found["pair"] == [None] * 3
    assert found["layout"] == [0.5, 0.0, 0.5]


def test_media_stand_before_the_question_in_messages():
    task = TeachingTask("a", "x", ("m",), False, Score(0.5))
    (message,) = messages_of(task.instruction("full", "free"))
    assert [part["type"] for part in message["content"]] == ["image", "text"]
    assert "<think>" in message["content"][1]["text"]


def test_logged_figures_have_our_names():
    logged = [
        {
            "step": 1,
            "reward": 0.5,
            "rewards/score/mean": float("nan"),
            "rewards/pair/mean": None,
            "frac_reward_zero_std": 0.25,
            "loss": 0.1,
        },
        {"step": 1, "train_runtime": 3.0},
    ]
    assert history_of(logged) == [{"step": 0, "reward": 0.5, "wasted": 0.25, "loss": 0.1}]


@pytest.mark.skipif(bool(importlib.util.find_spec("trl")), reason="trl is installed")
def test_without_trl_the_engine_says_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="trl is not installed"):
        teach_trl.teach_by_trl(lesson(paper()), Any, Place(tmp_path, tmp_path, tmp_path))  # type: ignore[arg-type]
    assert teach_trl.lacking_trl()


def write_tiny_qwen(folder: Path) -> None:
    """A Qwen2.5-VL with random weights, its processor and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>")  # noqa: S106 - tokens of a vocabulary
    names = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(names)})
    ids = {name.strip("<|>"): int(tokenizer.convert_tokens_to_ids(name)) for name in names}  # type: ignore[arg-type]
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}"
        f"{image}{{% else %}}{{{{ p['text'] }}}}{{% endif %}}{{% endfor %}}{{% endif %}}<|im_end|>\n{{% endfor %}}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}  # fmt: skip
    vision = {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 16,
              "patch_size": 14, "spatial_merge_size": 2, "fullatt_block_indexes": [1], "window_size": 56}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=template
    ).save_pretrained(folder)


def tiny(**changes: Any) -> teach.Config:
    """Two steps of two questions with four answers each, of the tiny Qwen."""
    training = TrainingConfig(
        engine="single", seed=1, threads=1, precision="float32", steps=2, batch_examples=8, micro_batches=2,
        learning_rate=1e-3, weight_decay=0.0, warm_up_share=0.0, clip_norm=1.0, checkpoint_every=1,
    )  # fmt: skip
    section = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["teach"]
    return dataclasses.replace(
        build_config(teach.Config, "teach", section),
        engine="trl",
        training=training,
        drawing=dataclasses.replace(paper().drawing, group=4, most_tokens=6),
        trl=teach_trl.TrlConfig("tiny_qwen", "sdpa", 784, 3136),
        **changes,
    )


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    return place_for(line, "teach")


def rated(place: Place) -> ImportedSource:
    """Six rated images: the second is cut off, the last is not there; and a clip, which trl does not read."""
    root = place.root / "rated"
    root.mkdir()
    for number in range(5):
        Image.new("RGB", (90, 70), (50 * number, 80, 40)).save(root / f"{number}.png")
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:50])
    paths = [*(f"{number}.png" for number in range(6)), "clip.mp4"]
    kinds = ["image"] * 6 + ["video"]
    frame = pd.DataFrame({"path": paths, "modality": kinds, "quality": [0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.4]})
    frame.to_parquet(place.root / "rated.parquet")
    return ImportedSource("rated.parquet", "rated")


REFUSED = {
    "0:1.png": "truncated",
    "0:5.png": "missing",
    "score 0:1.png": "medium_rejected",
    "score 0:5.png": "medium_rejected",
    "score 0:clip.mp4": "video",
}
READABLE = {f"score 0:{number}.png" for number in (0, 2, 3, 4)}


def refused(place: Place) -> dict[str, str]:
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    return dict(zip(rejects["id"], rejects["reason"], strict=True))


def test_broken_images_below_the_limit_are_rejects_and_nothing_takes_their_place(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    asked: list[teach_trl.Lesson] = []

    def heard(lesson: teach_trl.Lesson, *_: Any) -> list[dict[str, Any]]:
        asked.append(lesson)
        return [{"step": step, "reward": 0.5, "loss": 0.1} for step in range(2)]

    monkeypatch.setattr(teach, "teach_by_trl", heard)
    config = tiny(splits=(), sources=(rated(place),), shares={"score": 1.0}, max_reject_share=0.34)
    report = teach.run(config, place)
    assert report.rejected == {"medium_rejected": 2, "missing": 1, "truncated": 1, "video": 1}
    assert report.tasks["score"] == 4
    assert refused(place) == REFUSED
    (lesson,) = asked
    assert set(lesson.tasks) == READABLE
    questions = [one for step in lesson.plan for one in step]
    assert len(questions) == 2 * 2  # as many as without the broken ones: steps are not made shorter
    assert {one.instruction_id for one in questions} == READABLE  # each once before any comes again
    for one in questions:
        assert one.instruction_id == f"score {one.media[0]}"  # an image under its own truth, never another's


def test_too_many_broken_images_fail_before_anything_is_drawn(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(teach, "teach_by_trl", lambda *_: pytest.fail("it has begun to teach"))
    config = tiny(splits=(), sources=(rated(place),), shares={"score": 1.0}, max_reject_share=0.33)
    with pytest.raises(StageError, match=r"2 of 6 images do not decode, more than the declared share 0\.33"):
        teach.run(config, place)


def test_nothing_left_to_ask_is_told(place: Place):
    source = rated(place)
    for number in (0, 2, 3, 4):
        (place.root / "rated" / f"{number}.png").unlink()
    with pytest.raises(StageError, match="no question is left to ask"):
        teach.run(tiny(splits=(), sources=(source,), shares={"score": 1.0}, max_reject_share=1.0), place)


@needs_trl
def test_a_tiny_qwen_is_taught_and_broken_images_are_counted(place: Place):
    write_tiny_qwen(place.root / "tiny_qwen")
    report = teach.run(tiny(), place)
    rows = json.loads((place.out / "history.json").read_text())
    assert [row["step"] for row in rows] == [0, 1]
    assert {"reward", "format", "wasted", "tokens", "kl"} <= rows[0].keys()
    assert report.rejected == {"video": 2}
    assert (place.out / "model" / "config.json").is_file()
    assert set(read_table(place.out / "rejects.parquet", REJECTS)["reason"]) == {"video"}


@needs_trl
def test_a_tiny_qwen_is_shown_readable_images_alone(place: Place):
    write_tiny_qwen(place.root / "tiny_qwen")
    config = tiny(splits=(), sources=(rated(place),), shares={"score": 1.0}, max_reject_share=0.34)
    assert teach.run(config, place).tasks["score"] == 4
    assert refused(place) == REFUSED
    assert len(json.loads((place.out / "history.json").read_text())) == 2
