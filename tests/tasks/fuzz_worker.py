"""A process that decodes files from its standard input as ``collect`` and ``vital score`` do, and says how each ends.

Input: for each file its length (8 bytes, little-endian) and its bytes. Output: one line for each. A crash of a C
library, or a decoder that never comes back, takes this process alone with it; whoever started it sees that.
"""

import resource
import struct
import sys
from pathlib import Path

import numpy as np

from models.scorers import Sampling
from tasks.annotation.opinions import FrameRule, decode_frames
from tasks.errors import MediaError
from tasks.media import Limits, probe

MEMORY = 6 << 30
"""Address space that a decoder may ask for, bytes."""
LIMITS = Limits(max_pixels=4_000_000, max_seconds=60.0, max_frames=600)


def ending(data: bytes) -> str:
    """``decoded``, a reason, or ``ERROR`` and what is wrong."""
    try:
        info = probe(data, LIMITS)
    except MediaError as error:
        return _refusal(error)
    except Exception as error:  # noqa: BLE001 - any other type is what the run looks for
        return f"ERROR {type(error).__name__} in probe: {error}"
    try:
        frames_THWC = decode_frames(data, FrameRule(), list(Sampling), LIMITS).for_sampling(Sampling.FRAMES)
    except Exception as error:  # noqa: BLE001 - what collect admits must come out of the scorers' path
        return f"ERROR {type(error).__name__} after probe said {info}: {error}"
    if frames_THWC.dtype != np.uint8 or frames_THWC.shape[1:] != (info.height, info.width, 3):
        return f"ERROR probe said {info}, frames are {frames_THWC.dtype} {frames_THWC.shape}"
    return f"decoded {info.modality}"


def _refusal(error: MediaError) -> str:
    whole = error.reason.isidentifier() and len(str(error).splitlines()) == 1
    return error.reason if whole else f"ERROR a refusal of several lines: {str(error)!r}"


def _peak_mib() -> int:
    """Memory of this program at its highest; ``ru_maxrss`` would count that of the program which has forked it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while header := sys.stdin.buffer.read(8):
        data = sys.stdin.buffer.read(struct.unpack("<Q", header)[0])
        sys.stdout.write(" ".join(ending(data).split()) + "\n")
        sys.stdout.flush()
    sys.stdout.write(f"peak {_peak_mib()} MiB\n")


if __name__ == "__main__":
    main()
