"""Arguments of operators on strings and sequences, and of Constant in each of its spellings."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from tests.fuzz.recipes import Spec

from .draw import WORDS, At, Generator

__all__ = ["GENERATORS", "sparse"]


def strings(draw: At, op_type: str) -> Spec:
    words = WORDS[draw.rng.integers(0, len(WORDS), draw.shape(1, 2))]
    attributes: dict[str, object] = {}
    if op_type == "RegexFullMatch":
        attributes = {"pattern": draw.among(["a.*", "b", ""])}
    if op_type == "StringSplit":
        attributes = draw.some(delimiter=draw.among(["a", "-"]), maxsplit=1)
    if op_type == "StringNormalizer":
        words = WORDS[draw.rng.integers(1, len(WORDS), draw.integer(1, 4))]
        attributes = draw.some(case_change_action=draw.among(["LOWER", "UPPER", "NONE"]))
        attributes |= draw.some(stopwords=["ab"], is_case_sensitive=1)
    return Spec(op_type, draw.at, [words], attributes, 2 if op_type == "StringSplit" else 1)


def ngrams(draw: At, op_type: str) -> Spec:
    attributes = {
        "mode": draw.among(["TF", "IDF", "TFIDF"]),
        "min_gram_length": 1,
        "max_gram_length": 2,
        "max_skip_count": draw.integer(0, 1),
        "ngram_counts": [0, 2],
        "ngram_indexes": [0, 1, 2],
        "pool_int64s": [2, 3, 2, 3],
        **draw.some(weights=[0.5, 2.0, 1.5]),
    }
    shape = (5,) if draw.chance(0.5) else (2, 5)
    data = draw.ints(1, 4, shape).astype(draw.among([np.int32, np.int64]))
    return Spec(op_type, draw.at, [data], {**attributes})


def sequence(draw: At, op_type: str) -> Spec:
    data = draw.array(draw.shape(1), draw.dtype(draw.formals("SequenceConstruct", draw.at)[0]))
    if op_type == "SequenceConstruct":
        return Spec(op_type, draw.at, [data] * draw.integer(1, 3))
    if op_type == "SequenceEmpty":
        return Spec(op_type, draw.at, [], draw.some(dtype=draw.among([1, 7, 9])))
    inputs = [data]
    attributes: dict[str, object] = {}
    if op_type == "SequenceAt":
        inputs.append(np.array(draw.integer(-2, 1), draw.among([np.int64, np.int32])))
    if op_type == "ConcatFromSequence":
        new = draw.integer(0, 1)
        attributes = {"axis": draw.axis(data.ndim + new)} | ({"new_axis": 1} if new else {})
    return Spec(op_type, draw.at, inputs, attributes, sequences=(0,))


def constant(draw: At, op_type: str) -> Spec:
    spelled: list[dict[str, object]] = [{"value": tensor(draw)}]
    if draw.at >= 11:
        spelled.append({"sparse_value": sparse(draw)})
    if draw.at >= 12:
        spelled += [
            {"value_float": 1.5},
            {"value_floats": [1.0, -2.5]},
            {"value_int": draw.integer(-9, 9)},
            {"value_ints": [1, 2, -(2**40)]},
            {"value_string": "é"},
            {"value_strings": ["a", ""]},
        ]
    return Spec(op_type, draw.at, [], draw.among(spelled))


def tensor(draw: At):
    kinds = [np.float32, np.float64, np.float16] if draw.at < 9 else [np.float32, np.int64, np.int8,
                                                                    np.bool_]  # fmt: skip
    return numpy_helper.from_array(draw.rng.integers(0, 2, draw.shape()).astype(draw.among(kinds)))


def sparse(draw: At):
    """Return a sparse tensor of one or two axes, its places as numbers or as coordinates."""
    dims = draw.among([[6], [2, 3]])
    places = np.sort(draw.rng.permutation(6)[: draw.integer(0, 4)]).astype(np.int64)
    kind = draw.among([np.float32, np.int64, np.int32, np.float64, np.uint8])
    values = numpy_helper.from_array((places + 1).astype(kind), "values")
    if len(dims) == 2 and draw.chance(0.5):
        places = np.stack(np.unravel_index(places, dims), -1).astype(np.int64)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), dims)


_STRINGS = ("RegexFullMatch", "StringNormalizer", "StringSplit")
_SEQUENCES = ("SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceLength",
              "ConcatFromSequence")  # fmt: skip

GENERATORS: dict[str, Generator] = {
    **dict.fromkeys(_STRINGS, strings),
    **dict.fromkeys(_SEQUENCES, sequence),
    "TfIdfVectorizer": ngrams,
    "Constant": constant,
}
