"""Text without a medium: what distortions do, what words mean, and how a picture or clip may be described.

The decoders learn these as language only. No sentence here is ever said of a medium, and none names a level.
"""

from typing import Final

DISTORTIONS: Final[dict[str, str]] = {
    "gaussian blur": "softens every edge evenly",
    "lens blur": "spreads every point into a small disk",
    "motion blur": "smears edges along one direction",
    "color diffusion": "lets colors bleed over edges",
    "color shift": "moves one color beside the others, so that edges show colored fringes",
    "color quantization": "leaves only a few colors",
    "HSV color saturation": "makes the colors pale or inverts them",
    "Lab color saturation": "makes the colors unnaturally vivid",
    "JPEG2000 compression": "blurs fine detail and leaves ringing around edges",
    "JPEG compression": "leaves square blocks and ringing around edges",
    "white noise": "adds fine grain to every pixel",
    "white noise in color component": "adds fine colored grain",
    "impulse noise": "turns single pixels black or white",
    "multiplicative noise": "adds grain that grows with the light",
    "denoise": "smears fine texture away together with the grain",
    "brighten": "makes the picture lighter",
    "darken": "makes the picture darker",
    "mean shift": "moves all tones up or down",
    "jitter": "moves pixels to places nearby, so that edges look frayed",
    "non-eccentricity patch": "copies small patches to places nearby",
    "pixelate": "replaces fine detail by large squares",
    "quantization": "leaves only a few tones, so that gradients break into bands",
    "color block": "covers places with squares of one color",
    "high sharpen": "exaggerates edges and leaves halos",
    "contrast change": "stretches or squeezes the tones",
    "H264 compression": "leaves blocks and smeared texture in moving scenes",
    "H265 compression": "smears texture and leaves soft blocks in moving scenes",
    "frame stutter": "repeats frames, so that movement halts",
    "camera shake": "moves the whole frame about",
}
"""Names of the line's distortions and what each does: told in conversations without a medium only."""

DEFINITIONS: Final = (
    "Sharpness says how crisp the edges are",
    "Noise is a random change of single pixels",
    "Grain is noise that looks like fine sand",
    "Contrast is the distance between dark and bright areas",
    "Brightness says how much light there is",
    "Colourfulness says how vivid the colors are",
    "Blockiness is a grid of visible squares, often left by compression",
    "Clipping turns bright areas pure white and dark areas pure black",
    "Exposure is the amount of light that the camera collects",
    "Steadiness says how little the camera trembles",
    "Flicker is a rapid change of light between frames",
    "Fluency says whether movement goes on without halting",
    "Compression makes a file smaller and may leave artifacts",
    "Artifacts are patterns that were not in the scene",
    "Banding breaks a smooth gradient into visible steps",
    "Ringing is an echo beside a sharp edge",
    "The quality of the image has many sides, such as sharpness, noise, contrast, light and color",
    "The quality of the video has many sides, such as sharpness, noise, light, color, motion and steadiness",
    "The quality of an image is judged by people who look at it",
    "The quality of a video is judged by people who watch it",
    "Blur removes detail, resulting in a blurry image",
    "Poorly lit scenes hide detail in the shadows",
    "Overexposed areas lose their detail, and underexposed areas do too",
)

DESCRIPTIONS: Final = (
    (
        ("The {medium} is sharp", "Edges are crisp", "The main contours are in focus", "Fine detail is fully resolved"),
        (", so small structures can be told apart", ", with clearly drawn outlines", " over the whole {medium}"),
    ),
    (
        (
            "The {medium} is blurry",
            "Edges look soft and smeared",
            "The {medium} lacks sharpness",
            "The contours are out of focus",
        ),
        (", and fine detail is lost", ", so small structures cannot be told apart", ", resulting in a blurry {medium}"),
    ),
    (
        ("Sharpness is slightly reduced", "The {medium} is slightly blurry", "Edges are a little soft"),
        (
            ", and the finest detail is weakened",
            ", while larger structures remain clear",
            " in the finer parts of the {medium}",
        ),
    ),
    (
        ("No noise is visible", "The {medium} is free of grain", "Surfaces look clean", "Noise is hardly visible"),
        (
            " in the uniform areas of the {medium}",
            ", even in the darker parts of the {medium}",
            " and textures look undisturbed",
        ),
    ),
    (
        (
            "Noise is strong",
            "Heavy noise covers the {medium}",
            "The {medium} is very noisy",
            "Coarse grain is clearly visible",
        ),
        (", and it hides fine texture", " and disturbs the uniform areas", ", which makes surfaces look rough"),
    ),
    (
        ("Some noise is visible", "The {medium} is slightly noisy", "Faint grain can be seen"),
        (", while textures remain recognizable", " in the uniform areas of the {medium}"),
    ),
    (
        ("The lighting is sufficient", "The {medium} is well exposed", "Exposure is balanced", "The scene is well lit"),
        (
            ", and both shadows and highlights keep their detail",
            ", so the subject can be seen clearly",
            " throughout the {medium}",
        ),
    ),
    (
        (
            "The lighting is insufficient",
            "The {medium} is underexposed",
            "The scene is dimly lit",
            "The {medium} is somewhat dark",
        ),
        (
            ", and detail in the shadows disappears",
            ", so large parts are difficult to see",
            ", which hides the subject",
        ),
    ),
    (
        (
            "The {medium} is overexposed",
            "The {medium} is too bright",
            "The highlights are blown out",
            "Exposure is too strong",
        ),
        (
            ", and detail in the bright parts disappears",
            ", so light areas lose their structure",
            " over large parts of the {medium}",
        ),
    ),
    (
        ("The tones are well separated", "Contrast is sufficient", "The {medium} has depth"),
        (
            ", and shapes stand out from the background",
            " between shadows and highlights",
            ", which gives the {medium} depth",
        ),
    ),
    (
        (
            "The {medium} looks flat",
            "The {medium} lacks contrast",
            "The tones lie close together",
            "Contrast is slightly reduced",
        ),
        (
            ", and shapes hardly stand out from the background",
            ", giving a hazy impression",
            ", so the scene has little depth",
        ),
    ),
    (
        ("The colors are natural", "The colors look balanced", "Saturation is adequate", "The colors look natural"),
        (" throughout the {medium}", ", with believable hues in all parts of the {medium}", " and suit the scene"),
    ),
    (
        (
            "The colors are dull",
            "The colors look faded",
            "The {medium} is nearly colorless",
            "The colors are a little pale",
        ),
        (
            ", and the scene appears almost grey",
            ", so hues can hardly be told apart",
            ", while the hues remain recognizable",
        ),
    ),
    (
        (
            "The colors are oversaturated",
            "Saturation is excessive",
            "The colors are garish",
            "The colors are somewhat too vivid",
        ),
        (", and the hues look unnatural", ", so colored areas lose their texture", ", and strong hues stand out"),
    ),
    (
        ("No compression artifacts are visible", "The {medium} shows no blocking", "Compression is hardly visible"),
        (" in smooth areas or around edges", ", and gradients remain continuous", ", even where tones change slowly"),
    ),
    (
        (
            "Compression artifacts are obvious",
            "Strong blocking is visible",
            "The {medium} is blocky",
            "Compression is heavy",
        ),
        (
            ", and block edges cut through smooth areas",
            ", so gradients break into steps",
            ", which destroys fine texture",
        ),
    ),
    (
        ("Slight compression artifacts are visible", "Faint block edges can be seen", "Mild blocking is visible"),
        (" in smooth areas of the {medium}", ", while fine texture remains recognizable"),
    ),
    (
        ("The camera is steady", "The picture is stable", "The camera is held steadily", "The motion is smooth"),
        (" throughout the clip", ", and the framing changes only on purpose", " from the first frame to the last"),
    ),
    (
        ("The camera shakes strongly", "The picture is unsteady", "The video is shaky", "The camera shakes slightly"),
        (", and the framing jumps from frame to frame", ", so the scene is tiring to follow", " in parts of the clip"),
    ),
    (
        ("The movement is fluent", "Playback runs smoothly", "Motion is smooth"),
        (" and every frame brings a new picture", " from one frame to the next", ", without any frozen frame"),
    ),
    (
        (
            "Playback stutters",
            "The motion is jerky",
            "The movement halts again and again",
            "Playback stutters slightly",
        ),
        (", and many frames stand still", ", so moving objects jump", " because frames are repeated"),
    ),
)
"""Groups of main clauses and consequences that fit each other, in the manner of the line's descriptions."""
