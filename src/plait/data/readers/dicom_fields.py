"""The words of a DICOM file as columns: what tells of the picture, and of no person.

Files of hospitals name patients, doctors, places and times in dozens of fields. Nothing of these is
read unless the user names the field. Taken by default are the fields below alone: private ones and those
that nobody has looked at are no columns. The descriptions among them are free texts, which the Basic
Application Level Confidentiality Profile (PS3.15, annex E) removes or has cleaned: one that holds a name
or the number of the file's own patient is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, MutableSequence
from typing import Any, Final

from plait.core.errors import DataError, did_you_mean

DESCRIPTIONS: Final = (
    "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription",
    "PerformedProcedureStepDescription", "AcquisitionProtocolName", "DerivationDescription",
)  # fmt: skip
"""Free texts."""
FIELDS: Final = (
    "Modality", "BodyPartExamined", "Laterality", "ImageLaterality", "ViewPosition", "PatientPosition",
    "PatientOrientation", "ImageType", "ConversionType", "ScanningSequence", "SequenceVariant", "ScanOptions",
    "MRAcquisitionType", "SequenceName", "ConvolutionKernel", "FilterType", "ContrastBolusRoute",
    "PresentationIntentType", "Manufacturer", "ManufacturerModelName", *DESCRIPTIONS,
)  # fmt: skip
"""Keywords of the fields that are columns by default (PS3.6)."""

_OF_PATIENTS: Final = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "AccessionNumber",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "PatientMotherBirthName",
)  # fmt: skip
_SHORTEST: Final = 3  # characters of a name that is looked for: "Li" is part of many words
_UNREADABLE: Final = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"])


def check_asked(asked: Collection[str]) -> None:
    """Raises DataError for a name that is no field of DICOM, or one of bytes or of further fields."""
    from pydicom.datadict import dictionary_VR, keyword_dict

    for name in asked:
        if name not in keyword_dict:
            hint = did_you_mean(name, keyword_dict)
            raise DataError(f"DICOM has no field {name!r}{hint} (e.g. StudyDescription, Modality)")
        if _UNREADABLE.intersection(dictionary_VR(name).split(" or ")):
            raise DataError(f"the field {name} of DICOM holds no words")


def tags(asked: Collection[str]) -> list[str]:
    """The fields to read of a file: for pydicom's ``specific_tags``."""
    needed = ("SpecificCharacterSet", "Rows", "NumberOfFrames")
    return list(dict.fromkeys([*FIELDS, *_OF_PATIENTS, *needed, *asked]))


def words_of(found: Any, asked: Collection[str] = ()) -> dict[str, str]:
    """The columns of a file that have words.

    Args:
        found: a data set of pydicom.
        asked: further fields, by their keywords: personal ones too.
    """
    words = {name: _words(found.get(name)) for name in dict.fromkeys([*FIELDS, *asked])}
    own = _own_names(found)
    if own:
        for name in DESCRIPTIONS:
            if name not in asked and any(one in words[name].casefold() for one in own):
                del words[name]
    return {name: text for name, text in words.items() if text}


def _words(value: Any) -> str:
    if value is None:
        return ""
    several = value if isinstance(value, MutableSequence) else [value]
    return ", ".join(text for one in several if (text := str(one).strip()))


def _own_names(found: Any) -> set[str]:
    """Names and numbers of the people of a file, in lower case."""
    every = " ".join(_words(found.get(name)) for name in _OF_PATIENTS).casefold()
    return {part for part in re.split(r"[\s^=,;]+", every) if len(part) >= _SHORTEST}


def meta_of(words: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that no role takes."""
    return {name: text for name, text in words.items() if name not in columns.values()}
