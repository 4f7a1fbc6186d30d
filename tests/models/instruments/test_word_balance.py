"""A hundred lines that people could have written, each with the side it takes; and verdicts held against words."""

import pytest

from models.instruments.word_balance import Agreement, balance, beside_verdict, compare, feature_signs
from models.signals.claims import Attribute

FOR = (
    "The image is sharp and the colors are natural.",
    "Edges are crisp, and fine detail is fully resolved.",
    "The photo is not blurry at all.",
    "There is no visible noise, even in the shadows.",
    "The picture is free of compression artifacts.",
    "Not a blurry shot: every feather can be seen.",
    "The lighting is sufficient and the subject stands out.",
    "It has excellent clarity with vibrant colors.",
    "The scene is well lit, well composed and pleasant to look at.",
    "Noise is hardly visible.",
    "The photo shows little distortion.",
    "Very few artifacts can be found.",
    "The texture of the fur is clearly rendered.",
    "Colors look balanced and lifelike.",
    "The image never looks grainy.",
    "The contrast is good, which gives the picture depth.",
    "Nothing is out of focus.",
    "The subject is in focus and the background is pleasantly separated.",
    "Exposure is balanced, and no detail is lost in the highlights.",
    "A stunning photograph with rich, faithful colors.",
    "The clip is steady and motion runs smoothly.",
    "The video shows no stutter and no shake.",
    "Without any blocking, gradients stay continuous.",
    "The details are intricate and easy to recognize.",
    "The image does not suffer from noise.",
    "The image is clean.",
    "Sharpness is high.",
    "There are no signs of degradation.",
    "The picture is not only sharp but also well exposed.",
    "Compression is barely noticeable.",
    "It is a high-resolution image, detailed and clear.",
    "The camera is held steadily, so nothing shakes.",
    "Colors are not dull.",
    "The photograph is neither blurred nor noisy.",
    "Even small letters are legible, and the edges are sharp.",
    "The exposure is good and the tones are well separated.",
    "The image is remarkably clear.",
    "Minimal noise, crisp edges.",
    "The picture is professional and visually engaging.",
    "No flaws stand out.",
    "The focus is good, and the light is soft and pleasant.",
    "The shot is perfectly exposed.",
    "This is a beautiful picture with harmonious tones.",
    "Details are not lost in the shadows.",
    "The frame is free from blur.",
    "The sky shows no banding.",
    "The image has high contrast and adequate brightness.",
    "The playback is smooth.",
    "There is hardly any graininess to be seen.",
    "The image looks realistic, and its colors are natural.",
)
AGAINST = (
    "The image is blurry and the colors look faded.",
    "Strong noise covers the dark areas.",
    "The picture is not sharp.",
    "The photo lacks detail.",
    "Heavy compression artifacts are visible around the edges.",
    "The scene is underexposed, so the subject is hard to make out.",
    "The image is not clear.",
    "Edges are soft, and textures are lost.",
    "The lighting is insufficient.",
    "The photograph is grainy and dull.",
    "It is a low-quality picture with block edges.",
    "The colors are not natural.",
    "The video is shaky and stutters.",
    "Details are smeared by the compression.",
    "The highlights are blown out.",
    "Contrast is low, and the image looks flat.",
    "The picture suffers from motion blur.",
    "The face is out of focus.",
    "An unpleasant tint makes the photo look unnatural.",
    "The colors are oversaturated and garish.",
    "The clip is unstable, and frames are repeated.",
    "The image has been badly degraded by noise.",
    "The focus is poor.",
    "Nothing in the image is sharp.",
    "The image is distorted.",
    "There is no fine detail; everything is washed out.",
    "The exposure is not adequate.",
    "The photo is pixelated and hard to recognize.",
    "The image is dark and murky.",
    "Visible blocking spoils the sky.",
    "The motion is jerky.",
    "Noise is clearly visible.",
    "The tones lie close together, as if there were haze.",
    "The picture is neither sharp nor well exposed.",
    "The blur is severe.",
    "A loss of detail is obvious in the grass.",
    "The image fails to show any texture.",
    "The colors look pale, and the contrast is weak.",
    "Ringing appears around the letters.",
    "The background is messy and distracting.",
    "The image is hardly in focus.",
    "The photograph never looks sharp.",
    "The glaring light ruins the scene.",
    "The image lacks sharpness and has poor lighting.",
    "The footage trembles throughout.",
    "The saturation is too low.",
    "Artefacts detract from the picture.",
    "The quality of light is poor, the shadows are noisy.",
    "The text is illegible because of the blur.",
    "Speckles are spread over the whole picture.",
)


def test_there_are_a_hundred_different_lines():
    assert len(FOR) == len(AGAINST) == len(set(FOR)) == len(set(AGAINST)) == 50


def test_words_are_read_as_people_read_them():
    wrong = [line for line in FOR if balance(line).value <= 0] + [line for line in AGAINST if balance(line).value >= 0]
    assert len(wrong) <= 5, wrong


def test_a_balance_weighs_praise_against_blame():
    assert balance("A tree stands in a meadow.").value == 0.0
    assert balance("The image is sharp. The image is noisy.").value == 0.0
    slight = balance("The image is sharp. The image is slightly noisy.")
    assert (slight.praise, slight.blame) == (1.0, 0.5)
    assert slight.value == pytest.approx(1 / 3)


def test_the_verdict_does_not_speak_for_itself():
    text = "The image is blurry.\nOverall, the quality of the image is excellent. The edges are soft."
    assert " ".join(beside_verdict(text).split()) == "The image is blurry. The edges are soft."
    assert balance(text).value == -1.0
    assert balance("The quality of the image is excellent.").value == 0.0


@pytest.mark.parametrize(
    ("text", "quality", "found"),
    [
        ("The image is blurry and noisy.", 0.8, Agreement.CONTRADICTS),
        ("The image is blurry and noisy.", 0.2, Agreement.AGREES),
        ("The image is not blurry.", 0.2, Agreement.CONTRADICTS),
        ("The image is not blurry.", 0.9, Agreement.AGREES),
        ("The image isn't blurry, and you can\u2019t see any noise.", 0.9, Agreement.AGREES),
        ("The colors aren\u2019t natural.", 0.9, Agreement.CONTRADICTS),
        ("The image is blurry and noisy.", 0.5, Agreement.OPEN),
        ("The image is blurry and noisy.", 0.6, Agreement.CONTRADICTS),
        ("The image is blurry and noisy.", 0.39, Agreement.AGREES),
        ("A dog sleeps.", 0.9, Agreement.OPEN),
        ("The image is sharp. The image is noisy.", 0.9, Agreement.OPEN),
    ],
)
def test_a_verdict_agrees_with_its_words_or_contradicts_them(text: str, quality: float, found: Agreement):
    assert compare(text, quality) is found


def test_features_have_signs():
    found = feature_signs(
        "The image is sharp, but the noise is strong. It is not dark. Colors are faded. Edges are crisp."
    )
    assert found[Attribute.SHARPNESS] == 1
    assert found[Attribute.NOISE] == -1
    assert found[Attribute.EXPOSURE] == 1
    assert found[Attribute.COLOUR] == -1
    assert found[Attribute.CONTRAST] == 0
    assert feature_signs("The image is sharp. The image is blurry.")[Attribute.SHARPNESS] == 0
