"""The pieces of an answer join to its text, whatever the tokenizer and whatever was cut from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from mocae.models import LoadedBase
from mocae.policies import FixedPolicy
from mocae.serving import Delta, Event, Request, Ticket, TokenLogprob
from mocae.serving.rows.batch import Row
from mocae.serving.wire.pieces import Laid, Pieces, shown
from tiny import tiny_llama, tiny_tokenizer

WORDS = ("The", "answer", "is", "Lima", "😊", "né")


def llama_like() -> PreTrainedTokenizerFast:
    """Pieces that begin with U+2581, bytes as a last resort, and no space at the beginning of a text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *(f"\u2581{word}" for word in WORDS), "."]
    whole = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    whole.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    whole.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=whole, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


BASES = {"bytes": LoadedBase(tiny_llama(), tiny_tokenizer()), "llama": LoadedBase(tiny_llama(), llama_like())}


def written(base: LoadedBase, tokens: list[int], **how: Any) -> tuple[list[Delta], str, list[TokenLogprob]]:
    """Return what a row that writes these tokens tells: pieces as they come, the text, its tokens."""
    events: list[Event] = []
    request = Request([1], FixedPolicy.__new__(FixedPolicy), len(tokens) + 1, stream=True, top_logprobs=0, **how)
    row = Row(request, events.append, Ticket(), base=base, submitted=0.0)
    reason = None
    for token in tokens:
        reason = reason or row.take(token, TokenLogprob(token, -0.5), ends=False)
    if reason is None:
        row.take(0, None, ends=True)
    done = row.finished("stop")
    return [event for event in events if isinstance(event, Delta)], done.text, list(done.logprobs)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.parametrize("name", BASES)
def test_pieces_join_to_the_text_whole_and_streamed(name: str, data: st.DataObject) -> None:
    base = BASES[name]
    tokenizer = base.tokenizer
    emoji = tokenizer(" is 😊. ", add_special_tokens=False).input_ids
    token = st.integers(0, len(tokenizer) - 1).map(lambda one: [one])
    tokens = [one for some in data.draw(st.lists(token | st.just(emoji), max_size=12)) for one in some]
    how = {"strip": data.draw(st.booleans()), "stop": tuple(data.draw(st.sampled_from([[], ["s "], ["😊"], [" i"]])))}
    deltas, text, shown_tokens = written(base, tokens, **how)
    whole, streamed = Laid(Pieces.of(tokenizer)), Laid(Pieces.of(tokenizer))
    pieces = whole.lay(text, [one.token for one in shown_tokens])
    assert b"".join(pieces).decode() == text
    again = [piece for one in deltas for piece in streamed.lay(one.text, [t.token for t in one.logprobs])]
    assert b"".join(again).decode() == "".join(one.text for one in deltas) == text
    if "\ufffd" not in text:
        assert again == pieces
    assert "".join(whole.characters(piece) for piece in pieces) == text


def test_a_part_of_a_character_has_its_own_byte_and_a_special_token_its_name() -> None:
    tokenizer = llama_like()
    pieces = Pieces.of(tokenizer)
    assert [pieces[tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>")] for byte in "😊".encode()] == [
        bytes([byte]) for byte in "😊".encode()
    ]
    assert (pieces[2], pieces.named(2), shown(pieces.named(2))) == (b"", b"</s>", "</s>")
    assert (shown(b"\xf0\x9f"), shown(" né".encode())) == ("bytes:\\xf0\\x9f", " né")
