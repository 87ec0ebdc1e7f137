"""Messages in the words of the shell: ``--bias paths`` where the library says ``bias="paths"``."""

import re
import shlex
from collections.abc import Mapping

_VALUE = r"""\[[^\]]*\]|"[^"]*"|'[^']*'|[^\s,;:)]*[^\s,;:.)]|"""
_BOTH = re.compile(
    r"""(?:\w+=(?:'[^']*'|"[^"]*"|[^\s,]*)(?:, | and )?)+, on the command line (?=--)"""
)
_CALL = re.compile(r"[\w\]]\([^()]*$")
# where a word that is the name of an option can be nothing else: "Leave key out", "seed is -1"
_LEFT_OUT = r"(?<=Leave ){names}(?:(?:, | and ){names})*(?= out\b)"
_OF_A_VALUE = r"(?:^|(?<=[.;] )|(?<=: )){names}(?= (?:is|are) [\d'\"(\[{{-])"


def in_shell_words(text: str, flags: Mapping[str, str]) -> str:
    """A message with keyword arguments written as the options of a command.

    Args:
        text: the message.
        flags: of the command's options, by the names of the keyword arguments.

    Returns:
        The message; calls of Python in it stay as they are.
    """
    if not flags:
        return text
    text = _BOTH.sub("", text)
    names = "|".join(map(re.escape, flags))

    def spoken(match: re.Match[str]) -> str:
        if _CALL.search(text[: match.start()]):
            return match[0]
        value = _as_argument(match[2])
        return f"{flags[match[1]]} {value}" if value else flags[match[1]]

    # "as key=value" is how --arch-option is written
    text = re.sub(rf"(?<![\w.-])(?!key=value)({names})=({_VALUE})", spoken, text)
    return _bare(text, flags)


def _bare(text: str, flags: Mapping[str, str]) -> str:
    """Names without a value, where they are names and no words of English: those of two words, and
    others in the places that :data:`_LEFT_OUT` and :data:`_OF_A_VALUE` say.
    """

    def flagged(match: re.Match[str]) -> str:
        if _CALL.search(text[: match.start()]):
            return match[0]
        return re.sub(r"\w+", lambda word: flags.get(word[0], word[0]), match[0])

    names = "(?:" + "|".join(map(re.escape, flags)) + ")"
    two_words = [re.escape(name) for name in flags if "_" in name]
    places = [_LEFT_OUT.format(names=names), _OF_A_VALUE.format(names=names)]
    if two_words:
        places.append(rf"(?<![\w.*'\"`-])(?:{'|'.join(two_words)})(?![\w=('\"`])")
    for place in places:
        text = re.sub(place, flagged, text)
    return text


def _as_argument(value: str) -> str:
    """A value of Python as one types it: without quotes and brackets where it needs none."""
    bare = value.strip("[]")
    if bare[:1] in ("'", '"') and bare[-1:] == bare[:1] and bare[:1] not in bare[1:-1]:
        return shlex.quote(bare[1:-1])
    return bare if value.startswith("[") and "," not in bare else value
