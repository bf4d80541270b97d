"""Conversations as text: the models' own templates, rendered as ``transformers`` renders them."""

from __future__ import annotations

from typing import Any

import pytest

from npu_runtime.errors import InputError
from pipelines.chat import render

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "blocks": """{{ bos_token }}
    {%- set turns = namespace(count=0) %}
    {% for message in messages %}
        {% if message.role == 'system' %}
    [{{ message.content | trim }}]
        {% continue %}
        {% endif %}
        {% set turns.count = turns.count + 1 %}
    {{ turns.count }} {{ message.role | upper }}: {{ message.content }}
    {% endfor %}
    {% if add_generation_prompt -%}
        ASSISTANT:
    {%- endif %}
""",
    "json": (
        "{{ messages | tojson }}|{{ messages[0] | tojson(indent=2) }}|{{ {'b': 1, 'a': '<é>'} | tojson }}"
        "{% if tools is not none %}{{ tools }}{% endif %}{% if documents %}d{% endif %}"
    ),
    "generation": (
        "{% for message in messages %}{% if message.role == 'assistant' %}{% generation %}"
        "{{ message.content }}"
        "{{ eos_token }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}{% endfor %}"
    ),
    "macro": (
        "{% macro say(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}"
        "{% for m in messages[::-1] %}{% if loop.index > 5 %}{% break %}{% endif %}{{ say(m) }}{% endfor %}"
        "{{ dict(a=1).a }}{{ 'x' if messages is sequence else 'y' }}{{ messages | selectattr('role', "
        "'equalto', 'user') | map(attribute='content') | join(',') }}"
    ),
}

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "  Answer briefly. "}, {"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": "1 < 2 & 'quotes' \"x\""},
        {"role": "assistant", "content": "naïve 😀\n\n  two"},
        {"role": "user", "content": "", "name": None},
    ],
]


@pytest.fixture(scope="module")
def theirs() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])), **NAMES)


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=["question", "system", "turns"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_becomes_the_text_of_transformers(
    name: str, conversation: list[dict[str, Any]], answer: bool, theirs: Any
) -> None:
    wanted = theirs.apply_chat_template(
        conversation, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=answer)
    assert render(TEMPLATES[name], conversation, NAMES, answer=answer) == wanted
    assert "capital" in wanted or conversation is not CONVERSATIONS[0]


def test_a_template_may_ask_for_the_date() -> None:
    text = render("{{ strftime_now('%Y') }}", CONVERSATIONS[0], {})
    assert text.isdigit()
    assert len(text) == 4


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", CONVERSATIONS[0], "does not take.*must alternate"),
        ("{% for %}", CONVERSATIONS[0], "does not take this conversation"),
        ("{{ messages[0].content + 1 }}", CONVERSATIONS[0], "fails on this conversation"),
        ("{{ messages.append(1) }}", CONVERSATIONS[0], "does not take this conversation"),
        ("{{ messages.__class__.__mro__ }}", CONVERSATIONS[0], "does not take this conversation"),
        ("{{ cycler.__init__.__globals__ }}", CONVERSATIONS[0], "does not take this conversation"),
        ("x", [], "the conversation is empty"),
        ("x", ["text"], "'text' is no message"),
        ("x", [{"content": "text"}], "is no message: expected a mapping with role and content"),
    ],
)
def test_what_a_template_may_not_do(template: str, messages: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(template, messages, NAMES)
