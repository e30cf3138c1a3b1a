"""The platform goes as it came: by its own script, and nothing of it is left."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.platform import Platform


@pytest.mark.usefixtures("nodes")
def test_destroy_leaves_nothing(platform: Platform) -> None:
    """`make destroy`: no namespace, CRD, webhook or cluster role of the platform is there afterwards."""
    if not platform.terraform:
        pytest.skip(
            "`make destroy` is Terraform's: it is not installed, or TF_PLUGIN_MIRROR names no mirror of its provider"
        )
    platform.script("destroy", "local", "-auto-approve", timeout=600)
    assert platform.cluster_scoped() - platform.at_first == set()
