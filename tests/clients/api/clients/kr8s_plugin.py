"""What kr8s's own tests want of whoever runs them: a cluster. And which of them cannot pass yet."""

import gc
import os
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent

# Tests that say nothing of a server, each with the reason.
LEFT_OUT = {
    "test_api.test_api_timeout": "it wants an answer to take longer than 10 microseconds",
    "test_api.test_api_resources": "it wants one resource called nodes; with metrics there are two",
}


class Cluster:
    kubectl_path = os.environ["KUBECTL"]
    kubeconfig_path = pathlib.Path(os.environ["KUBECONFIG"])

    def kubectl(self, *arguments):
        command = [self.kubectl_path, *arguments]
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


@pytest.fixture(scope="session")
def k8s_cluster():
    return Cluster()


@pytest.fixture
def ensure_gc():
    """Two tests ask for it, and the wheel does not have it: what was made is collected."""
    yield
    gc.collect()


def not_yet(modules):
    """Tests of these modules, each with the reason why it cannot pass: `MODULE.NAME: REASON`."""
    lines = (HERE / "kr8s-not-yet.txt").read_text().splitlines()
    reasons = dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))
    return {test: reason for test, reason in reasons.items() if test.split(".")[0] in modules}


def pytest_collection_modifyitems(items):
    modules = {item.path.stem for item in items}
    reasons = not_yet(modules)
    stale = reasons.keys() - {f"{item.path.stem}.{item.originalname}" for item in items}
    if stale:
        raise pytest.UsageError(f"kr8s-not-yet.txt names tests that do not exist: {stale}")
    for item in items:
        name = f"{item.path.stem}.{item.originalname}"
        if name in LEFT_OUT:
            item.add_marker(pytest.mark.skip(reason=LEFT_OUT[name]))
        reason = reasons.get(name)
        if reason:
            # What passes after all must be taken off the list.
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
