"""How many tiles and motion frames a medium is shown as, told from its size and length: nothing is decoded."""

from models.tiling import choose_grid
from models.vision_encoder import VisualSpec, plan_frames


def image_tiles(height: int, width: int, spec: VisualSpec) -> int:
    """Tiles that ``models.vision_encoder.prepare_image`` makes of an image of these sides (pixels)."""
    if spec.tiling == "fragments":
        return 1 + spec.native_tiles
    flags = spec.compatibility
    columns, rows = choose_grid(height, width, spec.tile_px, spec.max_tiles, "area" if flags.area_tiling else "aspect")
    if columns * rows > 1:
        return columns * rows + 1  # and a thumbnail
    return 2 if flags.doubled_single_tile else 1


def clip_shape(frames: int, fps: float, spec: VisualSpec) -> tuple[int, int]:
    """Tiles and motion frames that ``prepare_clip`` makes of a clip of so many frames, at ``fps`` frames a second."""
    if spec.tiling == "dynamic":
        plan = plan_frames(frames, fps, spec)
        return len(plan.key), len(plan.motion)
    return min(spec.key_frames, frames) * (1 + spec.frame_native_tiles), min(spec.motion_frames or frames, frames)
