"""Tables and sentences of reports, word by word, from figures that are known."""

from __future__ import annotations

from typing import Any

import pytest

from plait.evaluation.report import answers as report_answers
from plait.evaluation.report import captions as report_captions
from plait.evaluation.report import drawing as report_drawing
from plait.evaluation.report import finetuning as report_finetuning
from plait.evaluation.report import words
from plait.evaluation.report.curves import curves

ANSWERS: dict[str, Any] = {
    "split": "test",
    "vqa": {
        "accuracy": 75.25,
        "accuracy_low": 70.0,
        "accuracy_high": 80.5,
        "questions": 1200,
        "normaliser": "rules/1",
        "by_answer_type": {"yes/no": {"accuracy": 90.0, "questions": 400}},
    },
    "match": {"accuracy": 61.0, "samples": 30},
    "controls": {"question_only": 40.0, "shuffled_pictures": 35.5, "mine": 1.0},
}


def test_answers() -> None:
    assert list(report_answers.lines(ANSWERS)) == [
        "",
        "## Accuracy on the test split, in percent",
        "",
        "| what | of | accuracy |",
        "|---|---|---|",
        "| Answers | 1,200 | 75.25 (70.00 to 80.50) |",
        "| Pairs told apart | 30 | 61.00 |",
        "| Answers: yes/no | 400 | 90.00 |",
        "| no picture | 1,200 | 40.00 |",
        "| another picture | 1,200 | 35.50 |",
        "| mine | 1,200 | 1.00 |",
        "",
        "In parentheses: 95% bootstrap intervals over pictures.",
    ]
    html = report_answers.answers(ANSWERS)
    assert (
        "75.2% of 1,200 questions are answered rightly. Shown another question&#x27;s picture the "
        "model gets 35.5%: the difference is what it reads from the picture. 61.0% of the pairs are "
        "right."
    ) in html
    assert "Answers: 1,200, Pairs told apart: 30, Answers: yes/no: 400, no picture: 1,200" in html
    assert "Answers: 75.2 percent; Pairs told apart: 61.0 percent" in html
    assert "by the rules rules/1" in html
    plain = report_answers.answers({"classification": {"accuracy": 50.0}})
    assert "50.0% of the classes are right." in plain and "rules" not in plain
    assert "Shown another" not in report_answers.answers({"vqa": ANSWERS["vqa"]})
    assert list(report_answers.lines({"split": "test", "match": {"accuracy": 2.0}}))[5] == (
        "| Pairs told apart |  | 2.00 |"
    )
    assert report_answers.counted({"samples": 3}) == 3 and report_answers.counted({}) is None
    assert report_answers.answers({}) == "" and not list(report_answers.lines({}))


def measures(value: float) -> dict[str, float]:
    return dict.fromkeys(report_captions.MEASURES, value)


def test_captions() -> None:
    result = {
        "split": "test",
        "captions": {
            **measures(1.5),
            "bleu_1_low": 1.0,
            "bleu_1_high": 2.25,
            "captions": 1200,
            "distinct": 1100,
        },
        "controls": {"shuffled_pictures": measures(0.125)},
        "examples": [{"written": "a|b", "references": ["c", "d"], "another_picture": "<e>"}],
    }
    told = list(report_captions.lines(result))
    assert told == [
        "",
        "## Captions of the test split",
        "",
        "| measure | captions | of another picture |",
        "|---|---|---|",
        "| CIDEr-D (0 to 10) | 1.50 | 0.12 |",
        "| BLEU-1, % | 1.50 (1.00 to 2.25) | 0.12 |",
        "| BLEU-4, % | 1.50 | 0.12 |",
        "| ROUGE-L, % | 1.50 | 0.12 |",
        "",
        "Of 1,200 pictures. In parentheses: 95% bootstrap intervals over pictures.",
        "",
        "| written | people wrote | written of another picture |",
        "|---|---|---|",
        "| a b | c / d | <e> |",
    ]
    html = report_captions.captions(result)
    assert "1,200 pictures were described, in 1,100 different ways." in html
    assert "<td>BLEU-1, %</td><td>1.50 (1.00 to 2.25)</td><td>0.12</td>" in html
    assert "<td>a|b</td><td>c / d</td><td>&lt;e&gt;</td>" in html
    without = {**result, "examples": []}
    assert list(report_captions.lines(without)) == told[:11]
    assert "people wrote" not in report_captions.captions(without)
    assert report_captions.captions({}) == "" and not list(report_captions.lines({}))


def test_codes_of_a_drawing_model() -> None:
    result = {
        "split": "test",
        "reconstruction": {"mse": 0.01234, "psnr": 19.0, "psnr_low": 18.5, "psnr_high": 19.25},
        "codes": {"without_text": 2.5},
        "counts": {"pictures": 1200},
    }
    assert list(report_drawing.lines(result)) == [
        "",
        "## Codes on the test split",
        "",
        "| what | value |",
        "|---|---|",
        "| squared error of rebuilt pictures, pixels in 0..1 | 0.0123 |",
        "| their signal to noise, dB | 19.00 (18.50 to 19.25) |",
        "| nats a code, no text read | 2.500 |",
        "",
        "Of 1,200 pictures. In parentheses: 95% bootstrap intervals over pictures.",
    ]
    assert not list(report_drawing.lines({"split": "test"}))


def test_fine_tuning_before_and_after_and_the_path() -> None:
    retrieval = {"text_to_image": {"R@1": 40.0, "R@5": 60.0}, "image_to_text": {"R@1": 30.0}}
    row = {"value": 50.0, "text_to_image": 41.0, "image_to_text": 42.0}
    result: dict[str, Any] = {
        "split": "test",
        "retrieval": retrieval,
        "before": {"retrieval": {"text_to_image": {"R@1": 42.5}, "image_to_text": {"R@1": 0.0}}},
        "wise_ft": {
            "alpha": 0.5,
            "metric": "mean recall",
            "samples": 20,
            "split": "validation",
            "path": [{"alpha": 0.0, **row}, {"alpha": 0.5, **row, "zero_shot": 7.0}],
        },
    }
    told = list(report_finetuning.lines(result))
    assert told[:9] == [
        "",
        "## Before and after fine-tuning",
        "",
        "In percent, on the test split. Before is the published model, of which no weight was "
        "changed.",
        "",
        "| measure | before | after | change |",
        "|---|---|---|---|",
        "| words find the picture, R@1 | 42.5 | 40.0 | -2.5 |",
        "| a picture finds its words, R@1 | 0.0 | 30.0 | +30.0 |",
    ]
    assert told[10] == "## From the published to the fine-tuned weights"
    assert "on the 20 samples of the validation split, where mean recall chose alpha" in told[12]
    assert told[14:] == [
        "| alpha | mean recall | text to image R@1 | image to text R@1 | zero-shot top-1 |",
        "|---|---|---|---|---|",
        "| 0 | 50.0 | 41.0 | 42.0 |",
        "| 0.5 (kept) | 50.0 | 41.0 | 42.0 | 7.0 |",
    ]
    html = report_finetuning.finetuning(result)
    assert html.count("<table>") == 2
    assert (
        '<tr><th scope="row">0.5 (kept)</th><td class="number">50.0</td><td class="number">41.0</td>'
        '<td class="number">42.0</td><td class="number">7.0</td></tr>'
    ) in html
    assert report_finetuning.finetuning({"retrieval": retrieval}) == ""


def step(number: int, stage: str = "one", **more: Any) -> dict[str, Any]:
    return {"kind": "update", "stage": stage, "run_step": number, **more}


def check(number: int, **more: Any) -> dict[str, Any]:
    return {**step(number), "kind": "validation", **more}


def test_curves_of_losses_tasks_and_gradients() -> None:
    """Every sentence has the first and the last value, in that order."""
    tasks = ["a", "b", "c", "d", "e"]
    records = [
        step(
            number,
            loss=8.0 / number,
            scale=14.0 + number,
            grad_norm=3.0 * number,
            parts={
                **{name: place + 10.0 / number for place, name in enumerate(tasks)},
                "agreement/a-b": [0.5, -0.25, -0.5, 0.0][number - 1],
                **{f"agreement/a-{other}": 1.0 for other in "cdef"},
            },
        )
        for number in (1, 2, 3, 4)
    ]
    found = {one.title: one for one in curves([*records, check(4, loss=1.5)])}
    loss = found["Loss"]
    assert loss.told == "training loss from 8 to 2; validation loss from 1.5 to 1.5"
    assert [(one.name, one.style) for one in loss.series] == [("training", 1), ("validation", 2)]
    assert loss.series[0].points == [(1, 8.0), (2, 4.0), (3, 8 / 3), (4, 2.0)]
    told = found["Loss of each task"]
    assert told.told == (
        "a ends at 2.5; b ends at 3.5; c ends at 4.5; d ends at 5.5; e ends at 6.5."
    )
    assert [one.style for one in told.series] == [1, 2, 3, 4, 1]  # of four colours
    gradients = found["Agreement of the tasks' gradients (cosine)"]
    assert gradients.told.endswith("against one another in 2 of 20 measurements.")
    assert [one.name for one in gradients.series][:2] == ["a and b", "a and c"]
    assert [one.style for one in gradients.series] == [1, 2, 3, 4, 1] and not gradients.zero
    scale = found["Logit scale (1 / temperature)"]
    assert scale.told == "The logit scale goes from 15.0 to 18.0."
    norm = found["Gradient norm before clipping"]
    assert norm.told == "The gradient norm goes from 3 to 12." and norm.zero
    one_task = [step(1, parts={"a": 1.0}), step(2, parts={"a": 0.5})]
    assert curves(one_task) == []


def test_curves_of_accuracy_rank_and_recall() -> None:
    records = [
        check(10, vqa={"accuracy": 20.0}, rank={"image": 30.0, "text": 3.0}),
        check(20, vqa={"accuracy": 45.0}, match={"accuracy": 60.0}, rank={"text": 4.0}),
        step(21, stage="two"),
        check(30, mean_recall=5.0, retrieval={"image_to_text": {"R@1": 7.0}}),
        check(40, mean_recall=4.0),
    ]
    found = {one.title.split()[1]: one for one in curves(records)}
    accuracy, recall, rank = found["accuracy,"], found["recall,"], found["rank"]
    assert accuracy.title == "Validation accuracy, %"
    assert accuracy.told == "answers end at 45.0 percent; pairs end at 60.0 percent."
    assert [one.style for one in accuracy.series] == [1, 3]
    assert recall.title == "Validation recall, %"
    assert (recall.mark, recall.mark_label) == ((30, 5.0), "best 5.0")
    assert recall.told.endswith("the best mean recall is 5.0 percent.")
    assert [one.name for one in recall.series] == ["mean recall", "picture to words, R@1"]
    assert rank.told == "Effective rank: images end at 30 directions; texts end at 4 directions."
    assert {one.borders for one in (accuracy, recall, rank)} == {(21,)}


def test_retrieval_in_words() -> None:
    """Of 50 pictures with two right ones, guessing finds one first in 4 of 100 cases; among the
    first five it misses with 48/50 47/49 46/48 45/47 44/46 = 45 44 / (50 49)."""
    ask = {"R@1": 20.4, "R@5": 51.5, "candidates": 50, "queries": 1200, "right": 2.0,
           "R@1_low": 15.5, "R@1_high": 25.0}  # fmt: skip
    assert words.retrieval_words({"text_to_image": ask}, "test") == (
        "Ask with a text among 50 pictures that training never touched (1,200 texts asked): one of "
        "the 2 right ones (in the mean) is the first answer in 20 of 100 cases and among the first "
        "5 in 52. Guessing would give 4 and 19. With other pictures of the same kind, 16 to 25 of "
        "100 for the first place would be no surprise (95% interval)."
    )
    alone = {"R@1": 20.0, "candidates": 50, "queries": 3}
    told = words.retrieval_words({"text_to_image": alone}, "validation")
    assert told.startswith("Ask with a text among 50 pictures of the validation split (3 texts")
    assert "): the right one is the first answer in 20 of 100 cases and the first answer" in told
    assert told.endswith("Guessing would give 2 and 2.")
    assert words.chance_of(5, 50, 2.0) == pytest.approx(100 * (1 - 45 * 44 / (50 * 49)))
    assert words.chance_of(9, 3, 1.0) == pytest.approx(100)


def test_geometry_in_words() -> None:
    geometry = {
        "cosines": {"separation": 0.987, "true": {"mean": 0.5}, "random": {"mean": -0.001}},
        "dimensions": 64,
        "rankme": {"image": 30.4},
        "modality_gap": 0.5,
        "alignment": 1.25,
        "uniformity": {"image": -2.5, "text": None},
    }
    told = words.geometry_words(geometry)
    assert [(name, value) for name, value, _ in told] == [
        ("Separation of pairs", "98.7%"),
        ("Effective rank, images", "30 of 64"),
        ("Modality gap", "0.50"),
        ("Alignment", "1.25"),
        ("Uniformity, images", "\N{MINUS SIGN}2.50"),
    ]
    assert told[0][2].endswith("the cosine of a true pair is 0.50, of a random one 0.00.")
    geometry["cosines"]["separation"] = None  # type: ignore[index]
    assert words.geometry_words(geometry)[0][0] == "Effective rank, images"


def test_languages_in_words() -> None:
    def found(value: float) -> dict[str, dict[str, float]]:
        return {"text_to_image": {"R@1": 1.0, "R@10": value, "R@10_low": 0.0}}

    assert words.language_words({"en": found(50.5), "xx": found(7.0)}) == (
        "The right picture is among the first 10 in: 51 with texts in English, 7 with texts in xx "
        "(of 100 cases)."
    )
    assert words.language_words({"en": found(1.0)}) == ""
