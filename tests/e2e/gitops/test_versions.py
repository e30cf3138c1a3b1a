"""What renders the charts here and in a platform's workflows is what renders them in the cluster."""

from __future__ import annotations

import re

from tests.e2e.toolchain import module_dir
from tests.pins import pinned


def test_helm_is_the_one_that_argo_cd_brings() -> None:
    tools = (module_dir("argocd") / "hack" / "tool-versions.sh").read_text()
    assert re.findall(r"(?m)^HELM_VERSION=(\S+)", tools) == [pinned("helm")]
