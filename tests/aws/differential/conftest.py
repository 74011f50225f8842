"""Assertions of the pairs tell what differs."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.aws.differential.pairs")
