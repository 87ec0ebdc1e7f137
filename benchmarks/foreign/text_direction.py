"""A residual network (MobileNetV3) that tells lines of text from lines upside down, from the
package rapidocr-onnxruntime.

The lines are drawn with the fonts that Matplotlib brings along; every second one is turned by 180
degrees.

python text_direction.py --out run
"""

import numpy as np
from installed import Samples, file_of, folder_asked, write
from PIL import Image, ImageDraw, ImageFont

CHECKPOINT = "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "cmr10",
)
WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or "
    "one had by word but not what all were "
    "we when your can said there use an each which she do how their if will up other about out "
    "many then them these so some her would "
    "make like him into time has look two more write go see number no way could people"
).split()
HEIGHT, WIDTH = 48, 96


def main() -> None:
    """Draw, ask the network, write."""
    import onnxruntime

    out, rng = folder_asked(__doc__), np.random.default_rng(0)
    checkpoint = file_of("rapidocr_onnxruntime", CHECKPOINT)
    running = onnxruntime.InferenceSession(str(checkpoint))
    parts = {"text-train": samples(80, rng), "text-test": samples(100, rng)}
    write(
        out,
        checkpoint,
        parts,
        ["upright", "upside down"],
        lambda X: running.run(None, {"x": X})[0].argmax(1),
    )


def samples(n: int, rng: np.random.Generator) -> Samples:
    """Lines of text with values between -1 and 1, every second one upside down."""
    y = np.arange(n) % 2
    lines = [np.asarray(line(rng).rotate(180 * turned), np.float32) for turned in y]
    gray = (np.stack(lines)[:, None] / 255 - 0.5) / 0.5  # the scaling that the package applies
    return np.ascontiguousarray(np.broadcast_to(gray, (n, 3, HEIGHT, WIDTH)), np.float32), y


def line(rng: np.random.Generator) -> Image.Image:
    """The left end of a line of common words, dark on light or light on dark, cut closely."""
    font = ImageFont.truetype(
        file_of("matplotlib", f"mpl-data/fonts/ttf/{rng.choice(FONTS)}.ttf"), 40
    )
    text = " ".join(rng.choice(WORDS, 14))
    paper, ink = rng.integers(180, 256), rng.integers(0, 90)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    _, top, right, bottom = font.getbbox(text)
    above, below, before = (int(space) for space in rng.integers(1, 6, 3))
    picture = Image.new("L", (round(right) + 20, round(bottom - top) + above + below), int(paper))
    ImageDraw.Draw(picture).text((before, above - top), text, fill=int(ink), font=font)
    cut = picture.crop((0, 0, WIDTH * picture.height // HEIGHT, picture.height))
    return cut.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


if __name__ == "__main__":
    main()
