"""Omni's chat template, as its ports describe it, and a tokenizer of one token per character.

NVIDIA's repository with the template cannot be read here. NeMo-RL's processor for Nemotron and
TensorSharp's renderer say what the template does: it joins the texts, puts a placeholder and a line
break before them for each audio, and adds none if the text contains a placeholder.
"""

import re

PLACEHOLDER = "<so_embedding>"
SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<so_start>", "<so_end>")
_FIRST_ID = 0x110000  # one more than the last character
_IDS = {token: _FIRST_ID + number for number, token in enumerate((*SPECIAL, PLACEHOLDER))}
_PIECE = re.compile("|".join(map(re.escape, _IDS)) + "|.", re.DOTALL)


def render(messages, *, thinks=True, always_adds=False):
    """Return the text of a prompt. With `always_adds` the template is not NVIDIA's."""
    turns = [
        f"<|im_start|>{it['role']}\n{_content(it, always_adds)}<|im_end|>\n" for it in messages
    ]
    return (
        "".join(turns) + "<|im_start|>assistant\n" + ("<think>\n" if thinks else "<think></think>")
    )


def _content(message, always_adds):
    content = message["content"]
    if isinstance(content, str):
        return content.strip()
    text = "".join(part["text"] for part in content if part["type"] == "text")
    n_audios = sum(part["type"] != "text" for part in content)
    if PLACEHOLDER in text and not always_adds:
        n_audios = 0
    return f"{PLACEHOLDER}\n" * n_audios + text.lstrip("\n").strip()


def with_audio(prompt, n_tokens=13):
    """Replace the first placeholder, as vLLM does."""
    return prompt.replace(PLACEHOLDER, f"<so_start>{PLACEHOLDER * n_tokens}<so_end>", 1)


def encode(text):
    """Return the ids of a text."""
    return [_IDS.get(piece) or ord(piece) for piece in _PIECE.findall(text)]


def decode(ids):
    """Return the text of some ids."""
    texts = {number: token for token, number in _IDS.items()}
    return "".join(texts.get(it) or chr(it) for it in ids)
