"""Answers of originals and replicas, compared without asking anybody."""

from __future__ import annotations

import json
from typing import Any

from engine.model import Prompt, Reply
from engine.verbs.compare.answers import Recorded
from engine.verbs.compare.asking import Made, Question
from engine.verbs.compare.result import Comparison, Replicas, put_together


def says(text: Any, **fields: Any) -> Reply:
    words = text if isinstance(text, str) or text is None else json.dumps(text)
    return Reply(outcome="answered", text=words, **{"finish_reason": "stop", **fields})


def prompt(prompt_id: str, **fields: Any) -> Prompt:
    return Prompt(**{"id": prompt_id, "name": f"name of {prompt_id}", "text": "t", "version": "1", **fields})


def comparison(*pairs: tuple[Reply, Reply]) -> Comparison:
    known = Recorded()
    questions = [Question(prompt("p1"), f"case {number}", {"n": number}) for number in range(len(pairs))]
    replica = prompt("t1")
    for question, (original, own) in zip(questions, pairs, strict=True):
        known.replies[question.asked][1] = original
        known.replies[question.asked_of(replica)][1] = own
    replicas = Replicas(ids={"p1": "t1"}, prompts={"p1": replica})
    cases = put_together(questions, replicas, known, Made(), repeat=1, ended=False)
    return Comparison(cases=list(cases), made=Made())
