"""Conversion between float samples, 16-bit PCM and bytes; property test and examples."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from asr import pcm


@given(hnp.arrays(np.int16, st.integers(0, 50)))
def test_int16_survives_float32(samples):
    assert np.array_equal(pcm.to_int16(pcm.to_float32(samples)), samples)
    assert np.array_equal(pcm.from_bytes(pcm.to_bytes(samples)), samples)


def test_bytes_are_little_endian():
    assert pcm.to_bytes(np.array([1, -2], np.dtype(">i2"))) == b"\x01\x00\xfe\xff"


def test_values_beyond_full_scale_are_clipped():
    floats = np.array([-2.0, -1.0, 0.0, 1.0, 2.0], np.float32)
    assert pcm.to_int16(floats).tolist() == [-32768, -32768, 0, 32767, 32767]


def test_half_a_sample_is_refused():
    with pytest.raises(ValueError, match="multiple of element size"):
        pcm.from_bytes(b"\x00\x00\x00")
