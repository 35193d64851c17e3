"""DICOM files made here: what is shown of them, their words, and what is left out."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from tests.data.readers.test_picture_forms import changed, without

from plait.core.errors import DataError
from plait.core.media import BytesRef
from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit
from plait.data.readers.dicom_fields import words_of
from plait.data.writers.convert import convert
from plait.modalities.image import forms
from plait.modalities.image.clips import frames_of
from plait.modalities.image.decode import decode_image, decode_lines
from plait.modalities.image.levels import Levels
from plait.modalities.image.structure import SAFE_FORMATS

SECRETS = {
    "PatientName": "Doe^Jane",
    "PatientID": "MRN-4711",
    "PatientBirthDate": "19700101",
    "PatientAddress": "1 Elm Street",
    "InstitutionName": "St. Elsewhere",
    "ReferringPhysicianName": "House^Gregory",
    "AccessionNumber": "A0815",
    "StudyDate": "20200229",
    "PatientComments": "afraid of dogs",
    "StationName": "ROOM7",
}


def scan(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **fields: Any) -> Dataset:
    """A secondary capture of gray values (frames, H, W) or (H, W), 12 bits of 16 unless stated."""
    found = Dataset()
    found.SOPClassUID, found.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    found.Modality = "CT"
    found.Rows, found.Columns = values.shape[-2:]
    if values.ndim == 3:
        found.NumberOfFrames = len(values)
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = 8 * values.itemsize
    found.BitsStored = 8 if values.itemsize == 1 else 12
    found.HighBit = found.BitsStored - 1
    found.PixelRepresentation = int(values.dtype.kind == "i")
    found.PixelData = values.tobytes()
    found["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    found.file_meta = meta = Dataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = found.SOPClassUID, "1.2.3.4"
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def written(found: Dataset) -> bytes:
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def grays(data: bytes, **options: Any) -> list[int]:
    found = decode_image(data, name="x", **options)
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


# Hounsfield numbers 1024 below what is stored, and a window of 400 around 40. By PS3.3, C.11.2.1.2.1:
# black up to 40 - 0.5 - 399 / 2 = -160, white above 239, between them ((x - 39.5) / 399 + 0.5) 255:
# 40 gives 127.82, -60 gives 63.91.
STORED = np.array([[0, 864, 964, 1064, 1263, 4095]], np.uint16)
HOUNSFIELD = {"RescaleSlope": 1, "RescaleIntercept": -1024}
CT = {**HOUNSFIELD, "WindowCenter": 40, "WindowWidth": 400}


def test_a_window_after_rescaling() -> None:
    data = written(scan(STORED, **CT))
    assert grays(data) == [0, 0, 64, 128, 255, 255]
    shape, lines = decode_lines(data, name="x")
    np.testing.assert_array_equal(lines(0, 1), decode_image(data, name="x"))
    assert shape == (1, 6)


def test_of_several_windows_the_first() -> None:
    several = CT | {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}
    assert grays(written(scan(STORED, **several))) == [0, 0, 64, 128, 255, 255]


def test_an_exact_window() -> None:
    # C.11.2.1.3.2: from 40 - 200 to 40 + 200: 40 gives 127.5, which rounds to even.
    data = written(scan(STORED, **CT, VOILUTFunction="LINEAR_EXACT"))
    assert grays(data) == [0, 0, 64, 128, 254, 255]


def test_a_sigmoid() -> None:
    # 255 / (1 + exp(-4 (x - 40) / 400)): of -160 30.4, of -60 68.6, of 40 127.5, of 239 224.4.
    data = written(scan(STORED, **CT, VOILUTFunction="SIGMOID"))
    assert grays(data) == [0, 30, 69, 128, 224, 255]


def test_a_table() -> None:
    # From 2 on: 0, 100, 255 of 8 bits; below and above the ends count.
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 2, 8], [0, 100, 255]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    values = np.array([[0, 2, 3, 4, 900]], np.uint16)
    assert grays(written(scan(values, VOILUTSequence=[table]))) == [0, 0, 100, 255, 255]


def test_the_lowest_is_white_in_monochrome1() -> None:
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    assert grays(written(scan(STORED, **CT, **inverted))) == [255, 255, 191, 127, 0, 0]
    shaped = {"PresentationLUTShape": "INVERSE"}
    assert grays(written(scan(STORED, **CT, **shaped))) == [255, 255, 191, 127, 0, 0]
    levels = Levels(window=(-160, 239))
    assert grays(written(scan(STORED, **CT, **inverted)), levels=levels) == [
        255,
        255,
        191,
        127,
        0,
        0,
    ]


def test_levels_of_the_user_are_in_the_units_of_the_file() -> None:
    data = written(scan(STORED, **CT))
    # Bone: black at -24, white at 3071; 40 gives 5.27, 239 gives 21.7.
    assert grays(data, levels=Levels(window=(-24, 3071))) == [0, 0, 0, 5, 22, 255]


def test_without_a_window_the_values_of_the_picture_are_its_range() -> None:
    signed = np.array([[-1000, 0, 1000]], np.int16)
    assert grays(written(scan(signed, BitsStored=16, HighBit=15))) == [0, 128, 255]
    padded = np.array([[-2000, 0, 500, 1000]], np.int16)
    # What pads the picture does not count: 0 is black, 500 half way.
    data = written(scan(padded, BitsStored=16, HighBit=15, PixelPaddingValue=-2000))
    assert grays(data) == [0, 0, 128, 255]
    eight = np.array([[0, 100, 200, 255]], np.uint8)
    assert grays(written(scan(eight))) == [0, 100, 200, 255]


def test_colour() -> None:
    pixels = np.array([[[9, 99, 199], [3, 4, 5]]], np.uint8)
    found = scan(pixels[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB")
    found.PlanarConfiguration, found.PixelData = 0, pixels.tobytes()
    np.testing.assert_array_equal(decode_image(written(found), name="x"), pixels)


def test_a_palette() -> None:
    colours = np.array([[0, 65535, 257 * 9], [0, 0, 257 * 99], [0, 0, 257 * 199]], "<u2")
    found = scan(np.array([[0, 1, 2, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for name, colour in zip(("Red", "Green", "Blue"), colours, strict=True):
        setattr(found, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 16])
        setattr(found, f"{name}PaletteColorLookupTableData", colour.tobytes())
    shown = [[0, 0, 0], [255, 0, 0], [9, 99, 199], [255, 0, 0]]
    np.testing.assert_array_equal(decode_image(written(found), name="x")[0], shown)


def test_the_middle_frame_and_all_of_them_as_a_clip() -> None:
    frames = np.stack([np.full((2, 2), value, np.uint8) for value in (10, 20, 30)])
    data = written(scan(frames))
    assert decode_image(data, name="x").tolist() == [[[20] * 3] * 2] * 2
    clip = frames_of([BytesRef(data, "x.dcm")], 3)
    assert [int(decode_image(one.read(), name="x")[0, 0, 0]) for one in clip] == [10, 20, 30]


def test_an_enhanced_file_states_windows_by_frame() -> None:
    def group(name: str, **fields: Any) -> Dataset:
        inner, outer = Dataset(), Dataset()
        for field, value in fields.items():
            setattr(inner, field, value)
        setattr(outer, name, [inner])
        return outer

    values = np.stack([STORED, STORED])
    shared = group(
        "PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"
    )
    each = [
        group("FrameVOILUTSequence", WindowCenter=centre, WindowWidth=400) for centre in (900, 40)
    ]
    data = written(
        scan(values, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=each)
    )
    assert grays(data) == [0, 0, 64, 128, 255, 255]  # the second of two is the middle one


def jpeg(size: tuple[int, int], form: str, value: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, value).save(
        buffer, form, **({"no_jp2": True} if form == "JPEG2000" else {})
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("syntax", "form"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")]
)
def test_compressed_frames_are_no_larger_than_the_file_states(syntax: str, form: str) -> None:
    found = scan(np.zeros((8, 8), np.uint8), syntax)
    found.PixelData = encapsulate([jpeg((8, 8), form)])
    assert np.abs(decode_image(written(found), name="x").astype(int) - 100).max() <= 1
    found.PixelData = encapsulate([jpeg((64, 64), form)])
    with pytest.raises(
        DataError, match=r"a frame of the DICOM picture has 4,096 pixels.* states 64"
    ):
        decode_image(written(found), name="x")


def test_runs_of_equal_bytes() -> None:
    values = np.repeat(np.arange(16, dtype=np.uint8)[:, None] * 10, 16, axis=1)
    found = scan(values)
    found.compress(RLELossless)
    np.testing.assert_array_equal(decode_image(written(found), name="x")[..., 0], values)


def test_a_compression_that_needs_a_package_says_which() -> None:
    found = scan(np.zeros((8, 8), np.uint8), JPEGLosslessSV1)
    found.PixelData = encapsulate([b"\xff\xd8\xff\xc3"])
    with pytest.raises(DataError, match=r"compressed as JPEG Lossless.*lacks a plugin.*gdcm"):
        decode_image(written(found), name="x.dcm")


def test_walls() -> None:
    data = written(scan(np.zeros((8, 8), np.uint16)))
    with pytest.raises(DataError, match="8 x 8 = 64 pixels, and the limit is 60"):
        decode_image(data, name="x", max_pixels=60)
    for cut in (len(data) - 40, len(data) // 2, 140):
        with pytest.raises(DataError, match=r"damaged|no picture"):
            decode_image(data[:cut], name="x")
    with pytest.raises(DataError, match="DICOM picture, which cannot be read here"):
        decode_image(data, name="x", formats=SAFE_FORMATS)
    report = scan(np.zeros((8, 8), np.uint16))
    del report.Rows
    with pytest.raises(DataError, match="holds no picture"):
        decode_image(written(report), name="x")


def test_damage_gives_pixels_or_a_data_error() -> None:
    seeds = [
        written(scan(STORED, **CT)),
        written(scan(np.full((64, 64), 7, np.uint8), DeflatedExplicitVRLittleEndian)),
    ]
    refused = 0
    for number in range(120):
        try:
            data = changed(seeds[number % 2], 132, number)
            array = decode_image(data, name="x", max_pixels=100_000)
        except DataError:
            refused += 1
        else:
            assert array.dtype == np.uint8 and array.shape[2] == 3
    assert 0 < refused < 120


def test_a_deflated_file_is_unpacked_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(scan(np.full((64, 64), 7, np.uint8), DeflatedExplicitVRLittleEndian))
    assert decode_image(data, name="x").max() == 7
    monkeypatch.setattr("plait.modalities.image.dicom.MOST_INFLATED", 4000)
    with pytest.raises(DataError, match="unpacks to more than 4,000 bytes"):
        decode_image(data, name="x")
    (length,) = struct.unpack_from("<L", data, 140)
    assert len(zlib.decompress(data[144 + length :], -zlib.MAX_WBITS)) > 4000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two series as a hospital exports them: folders of people, files without an ending."""
    for number, (name, part) in enumerate([("a/IM000001", "CHEST"), ("b/1.2.840.7", "HEAD")]):
        found = scan(
            STORED + np.uint16(number), **CT, **SECRETS, BodyPartExamined=part,
            StudyDescription=f"{part.lower()} without contrast", SeriesDescription=f"axial {number}",
            ImageType=["ORIGINAL", "PRIMARY"],
        )  # fmt: skip
        if number:
            found.StudyDescription = "Head of Jane Doe"
        path = tmp_path / f"{name}"
        path.parent.mkdir()
        path.write_bytes(written(found))
    stack = np.stack([STORED, STORED, STORED])
    (tmp_path / "c.dcm").write_bytes(written(scan(stack, **CT, SeriesDescription="cine")))
    return tmp_path


def test_words_of_the_files_are_columns_and_people_are_not(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert dataset.format == "dicom"
    by_id = {sample.id: sample for sample in dataset}
    assert len(by_id) == 3
    first = next(sample for id_, sample in by_id.items() if "IM000001" in id_)
    assert dict(first.meta) == {
        "Modality": "CT",
        "BodyPartExamined": "CHEST",
        "ImageType": "ORIGINAL, PRIMARY",
        "StudyDescription": "chest without contrast",
        "SeriesDescription": "axial 0",
    }
    second = next(sample for id_, sample in by_id.items() if "1.2.840" in id_)
    assert "StudyDescription" not in second.meta  # it names the patient
    told = " ".join(str(value) for sample in dataset for value in sample.meta.values()).casefold()
    for secret in SECRETS.values():
        assert secret.casefold() not in told
    assert all(sample.texts == () for sample in dataset)


def test_fields_that_are_asked_for(folder: Path) -> None:
    columns = {"text": "SeriesDescription", "group": "PatientID", "labels": "BodyPartExamined"}
    dataset = open_dataset(folder, columns=columns, on_bad_row="skip")
    assert all(getattr(note, "kind", "") != "no-text-column" for note in dataset.notes)
    assert sorted(sample.texts[0] for sample in dataset) == ["axial 0", "axial 1", "cine"]
    assert {sample.group for sample in dataset} == {"MRN-4711", None}
    assert all("PatientID" not in sample.meta for sample in dataset)
    with pytest.raises(
        DataError, match="no field 'StudyDescripton'; did you mean 'StudyDescription'"
    ):
        open_dataset(folder, columns={"text": "StudyDescripton"})
    with pytest.raises(DataError, match="PixelData of DICOM holds no words"):
        open_dataset(folder, columns={"text": "PixelData"})


def test_conversion_gives_endings(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "out", columns={"text": "SeriesDescription"})
    names = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert ".dcm" in names and ".bin" not in names
    dataset = open_dataset(tmp_path / "out")
    assert {sample.texts[0] for sample in dataset} == {"axial 0", "axial 1", "cine"}


def test_names_are_looked_for_in_descriptions_alone() -> None:
    found = scan(STORED, PatientName="Chest^Li", BodyPartExamined="CHEST", SeriesDescription="line")
    assert words_of(found)["BodyPartExamined"] == "CHEST"
    assert (
        words_of(found)["SeriesDescription"] == "line"
    )  # Li is too short to be a sign of a person
    found.SeriesDescription = "chest axial"
    assert "SeriesDescription" not in words_of(found)
    assert words_of(found, ["SeriesDescription"])["SeriesDescription"] == "chest axial"


def test_inspect_and_audit(folder: Path) -> None:
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "words.txt").write_text("read me")
    result = inspect(folder)
    assert (result["format"], result["samples"]) == ("dicom", 3)
    assert result["skipped"]["kinds"] == {"no-picture": 1}
    notes = {note["kind"]: note for note in result["notes"]}
    assert notes["several-frames"]["examples"] == ["c.dcm"]
    assert "text=NAME" in notes["no-text-column"]["message"]
    assert "SeriesDescription" in notes["no-text-column"]["message"]
    assert {"unpaired-text"} <= notes.keys()
    kinds = {row.kind for row in audit(folder).rows if row.severity == "error"}
    assert kinds == {"no-picture"}


def test_dicom_named_by_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(written(scan(STORED, **CT)))
    (tmp_path / "pairs.csv").write_text("image,caption\na.dcm,a slice\n")
    (sample,) = open_dataset(tmp_path)
    assert sample.image is not None
    assert sample.texts == ("a slice",) and grays(sample.image.read()) == [0, 0, 64, 128, 255, 255]


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in without(monkeypatch, "pydicom"):
        assert not forms.has_pydicom()
        with pytest.raises(DataError, match=r"3 files are not read .*DICOM pictures.*medical"):
            open_dataset(folder)
        with pytest.raises(DataError, match=r"is a DICOM picture: pip install .*medical"):
            decode_image(written(scan(STORED)), name="x")
