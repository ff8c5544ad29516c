"""Which tokens of a chat are the assistant's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from elias_trainer.chat import Chat, tokenize_chats

TEXT = st.text(st.sampled_from("ab \n\t(:é≈"), max_size=20)
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4)


def messages_of(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(part for turn in turns for part in turn)]


def said(tokenizer: Any, chat: Any) -> list[str]:
    """The text of each stretch of trained tokens."""
    stretches: list[list[int]] = []
    before = False
    for token, trained in zip(chat.input_ids.tolist(), chat.trained.tolist(), strict=True):
        if trained and not before:
            stretches.append([])
        if trained:
            stretches[-1].append(token)
        before = trained
    return [tokenizer.decode(stretch, clean_up_tokenization_spaces=False) for stretch in stretches]


@given(turns=TURNS)
@settings(max_examples=60, deadline=None)
def test_the_trained_tokens_are_every_answer_with_its_end_and_nothing_else(turns: Any, tokenizer: Any) -> None:
    chat = next(tokenize_chats([Chat(messages=messages_of(turns), where="f:1")], tokenizer))

    assert said(tokenizer, chat) == [answer + "<|im_end|>\n" for _, answer in turns]
    whole = tokenizer.apply_chat_template(messages_of(turns), tokenize=False)
    assert tokenizer.decode(chat.input_ids.tolist(), clean_up_tokenization_spaces=False) == whole


def test_an_indented_answer_follows_the_prompt_as_it_is_read_alone(tokenizer: Any) -> None:
    messages = messages_of([("write the body", "    return total")])
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole_ids = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False)[
        "input_ids"
    ]
    assert whole_ids[: len(prompt_ids)] != prompt_ids, "this tokenizer was to join the line end and the indent"

    chat = next(tokenize_chats([Chat(messages=messages, where="f:1")], tokenizer))

    assert chat.input_ids[: len(prompt_ids)].tolist() == prompt_ids
    assert chat.trained.tolist() == [False] * len(prompt_ids) + [True] * (len(chat.input_ids) - len(prompt_ids))


def test_only_turns_from_the_given_one_on_are_trained(tokenizer: Any) -> None:
    messages = messages_of([("a", "one"), ("b", "two")])

    chat = next(tokenize_chats([Chat(messages=messages, where="f:1", train_from=2)], tokenizer))

    assert said(tokenizer, chat) == ["two<|im_end|>\n"]


def test_a_base_without_a_template_gets_the_plain_one(tokenizer: Any) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")

    chat = next(tokenize_chats([Chat(messages=messages_of([("hi", "yes")]), where="f:1")], bare))

    text = bare.decode(chat.input_ids.tolist(), clean_up_tokenization_spaces=False)
    assert text == "### User:\nhi\n\n### Assistant:\nyes<|im_end|>\n\n"
    assert said(bare, chat) == ["yes<|im_end|>\n\n"]


def test_a_tokenizer_that_marks_word_starts_is_taken_apart_in_the_whole_text(tokenizer: Any) -> None:
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    texts = ["say yes and no to all of it"] * 20
    raw.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=60, special_tokens=["<s>", "</s>"], show_progress=False)
    )
    template = (
        "{% for m in messages %}{{ '<s>' if m.role == 'user' else ' ' }}{{ m.content }}"
        "{% if m.role != 'user' %}</s>{% endif %}{% endfor %}"
    )
    spaced = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", chat_template=template)

    chat = next(tokenize_chats([Chat(messages=messages_of([("say", "yes")]), where="f:1")], spaced))

    whole = spaced("<s>say yes</s>", add_special_tokens=False)["input_ids"]
    assert chat.input_ids.tolist() == whole
    assert spaced.decode(chat.input_ids[chat.trained].tolist()).strip() == "yes</s>"


def test_a_template_that_rewrites_earlier_turns_is_refused_by_name(tokenizer: Any) -> None:
    template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    odd = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, chat_template=template)

    with pytest.raises(ValueError, match=r"corpus\.jsonl:3: .*rewrites earlier turns"):
        next(tokenize_chats([Chat(messages=messages_of([("a", "b")]), where="corpus.jsonl:3")], odd))


def test_a_chat_that_the_template_refuses_is_named(tokenizer: Any) -> None:
    template = "{{ raise_exception('no system role here') }}"
    strict = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, chat_template=template)

    with pytest.raises(ValueError, match=r"c\.jsonl:9: .*no system role here"):
        next(tokenize_chats([Chat(messages=messages_of([("a", "b")]), where="c.jsonl:9")], strict))


def test_what_is_served_is_asked_in_the_form_that_training_saw(tokenizer: Any) -> None:
    from elias_trainer.speak import Voice

    messages = messages_of([("write the body", "return total"), ("and now", "nothing")])
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    for known in (tokenizer, bare):
        trained = next(tokenize_chats([Chat(messages=messages, where="f:1")], known))
        asked = Voice(None, known).encode_chat(messages[:3])
        assert trained.input_ids[: len(asked)].tolist() == asked, "the prompt of the last answer"
        assert trained.trained[len(asked)] and not trained.trained[len(asked) - 1]


def test_a_chat_that_the_template_refuses_is_a_bad_request(tokenizer: Any) -> None:
    from elias_trainer.openai_form import BadRequest, read_question
    from elias_trainer.speak import Voice

    picky = copy.deepcopy(tokenizer)
    picky.chat_template = "{{ raise_exception('only one system message') }}"
    with pytest.raises(BadRequest, match="only one system message"):
        read_question({"messages": [{"role": "user", "content": "hi"}]}, Voice(None, picky), is_chat=True)
