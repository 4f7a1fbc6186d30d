"""How tests teach a tiny model: few short answers in few steps."""

from models.grpo import GrpoRule
from models.rewards import KindWeights, RewardRule
from tasks.training import teach
from tasks.training.rollouts import Drawing
from tasks.training.teach_trl import TrlConfig
from tasks.training.teaching_course import ColdStart
from tasks.training.trainer import TrainingConfig

TRAINING = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=4, batch_examples=12, micro_batches=2,
    learning_rate=2e-3, weight_decay=0.0, warm_up_share=0.0, clip_norm=1.0, checkpoint_every=2, peak_flops=1e9,
)  # fmt: skip
ONE = KindWeights(1.0, 1.0)
CONFIG = teach.Config(
    engine="own",
    splits=("train", "warm_up"),
    sources=(),
    shares={"score": 0.5, "degradation": 0.25, "pair": 0.25},
    max_reject_share=0.1,
    trained=("decoder", "projector", "motion_projector"),
    question="short",
    head="fused",
    cold_start=ColdStart(steps=6, batch_examples=8, learning_rate=5e-3),
    drawing=Drawing(group=3, most_tokens=24, temperature=1.0, num_iterations=1),
    rewards=RewardRule("free", "step", 0.35, ONE, ONE, ONE),
    objective=GrpoRule(clip=0.2, beta=0.01, scale="std", average="sequence"),
    probe_tasks=2,
    training=TRAINING,
    trl=TrlConfig("Qwen/Qwen2.5-VL-7B-Instruct", "sdpa", 3136, 100352),
)
