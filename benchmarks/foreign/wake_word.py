"""An MLP that hears the word "alexa", from the package openwakeword, and speech of which nobody
doubts what was said.

Speech is synthesized by espeak-ng (a system package). The voices of the test samples are not among
those of the training samples. The network looks at 16 embeddings of 96 numbers, which two other
networks of the package make of two seconds of sound.

python wake_word.py --out run
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from installed import Samples, file_of, folder_asked, write
from scipy.signal import resample_poly

CHECKPOINT = "alexa_v0.1.onnx"
OTHERS = (
    "alex|alexander|a lexus|electra|election|elixir|a lecture|a letter|select her|I'll ask "
    "her|computer|hello there|music"
).split("|")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
SPEAKERS = {
    "wake-train": ("m1", "m2", "m3", "m5", "f1", "f2", "f5"),
    "wake-test": ("m4", "m6", "m7", "f3", "f4"),
}
FRAMES, RATE = 16, 16000  # embeddings that the network looks at; samples of sound a second


def main() -> None:
    """Speak, embed, ask the network, write."""
    out, rng = folder_asked(__doc__), np.random.default_rng(0)
    hear = session(CHECKPOINT)
    sizes = {"wake-train": 300, "wake-test": 200}
    parts = {part: samples(sizes[part], speakers, rng) for part, speakers in SPEAKERS.items()}
    write(
        out,
        model(CHECKPOINT),
        parts,
        ["other", "alexa"],
        lambda X: np.array([hear(x[None]).item() > 0.5 for x in X]).astype(int),
    )


def model(name: str) -> Path:
    """A file among the models of the package."""
    return file_of("openwakeword", f"resources/models/{name}")


def session(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A network of the package as a function from its input to its first output."""
    import onnxruntime

    running = onnxruntime.InferenceSession(str(model(name)))
    return lambda x: running.run(None, {running.get_inputs()[0].name: x})[0]


def samples(n: int, speakers: tuple[str, ...], rng: np.random.Generator) -> Samples:
    """Every second one is the word, the others are other words; voice, speed, pitch and the last
    word's distance to the end vary.
    """
    mel, embed = session("melspectrogram.onnx"), session("embedding_model.onnx")
    y = np.arange(n) % 2
    X = np.empty((n, FRAMES, 96), np.float32)
    for i, positive in enumerate(y):
        sound = spoken(
            "alexa" if positive else rng.choice(OTHERS),
            f"{rng.choice(ACCENTS)}+{rng.choice(speakers)}",
            rng,
        )
        # the scaling that the package applies
        spectrum = mel(two_seconds(sound, rng)[None]).squeeze() / 10 + 2
        windows = np.stack([spectrum[8 * k : 8 * k + 76] for k in range(FRAMES)])
        X[i] = embed(windows[..., None].astype(np.float32)).reshape(FRAMES, 96)
    return X, y


def spoken(text: str, voice: str, rng: np.random.Generator) -> np.ndarray:
    """The words as 16-bit sound at 16 kHz, silence at both ends cut off."""
    manner = ["-s", str(rng.integers(120, 190)), "-p", str(rng.integers(30, 70))]
    done = subprocess.run(
        ["espeak-ng", "-v", voice, *manner, "--stdout", str(text)], capture_output=True, check=True
    )
    # 44 bytes of header
    sound = resample_poly(np.frombuffer(done.stdout[44:], np.int16).astype(float), RATE, 22050)
    loud = np.flatnonzero(np.abs(sound) > 200)
    return sound[loud[0] : loud[-1] + 1]


def two_seconds(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Silence, with the sound near its end: what is left of a longer sound is its last part."""
    window = np.zeros((FRAMES - 1) * 1280 + 76 * 160 + 480, np.float32)
    end = len(window) - int(rng.uniform(0.02, 0.2) * RATE)
    sound = sound[-end:]
    window[end - len(sound) : end] = sound
    return window


if __name__ == "__main__":
    main()
