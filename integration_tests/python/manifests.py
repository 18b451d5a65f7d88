"""The Kubernetes manifests and the Terraform configuration of the examples.

The manifests are valid for the oldest and the newest supported Kubernetes, and the scripts in them do
their work: they run here as they are, with the directories of the volumes in other places.
"""

import json
import os
import re
import subprocess

import hcl2
import kubernetes_validate
import pytest
import yaml

from support import DESTINATION, ROOT, SOURCE, Handler, http_server, posthog

KUBERNETES = ROOT / "examples/kubernetes"
MANIFESTS = sorted(KUBERNETES.glob("*.yaml"))
VERSIONS = ["1.31", "1.37"]
TERRAFORM = ROOT / "examples/terraform/main.tf"
CATALOG = {
    "streams": [
        {
            "stream": {"name": "events", "json_schema": {}, "supported_sync_modes": ["incremental"]},
            "sync_mode": "incremental",
            "destination_sync_mode": "append",
        }
    ]
}


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def pod(document):
    """The pod that a Job or a CronJob makes; none for other kinds."""
    spec = document["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return spec.get("template", {}).get("spec")


def pods(path):
    return [found for found in map(pod, documents(path)) if found]


def test_there_are_manifests():
    assert {document["kind"] for path in MANIFESTS for document in documents(path)} >= {"CronJob", "Job"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_valid(path, version):
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_pods_need_no_privileges(path):
    for spec in pods(path):
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["initContainers"] + spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]["memory"] and container["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_retries_fit_the_completion_mode():
    """What a schema cannot say; see the documentation of Jobs."""
    job = next(document for path in MANIFESTS for document in documents(path) if document["kind"] == "Job")
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] >= job["spec"]["parallelism"]
    assert "backoffLimitPerIndex" not in job["spec"] or pod(job)["restartPolicy"] == "Never"
    cron = next(document for path in MANIFESTS for document in documents(path) if document["kind"] == "CronJob")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"


class Webhook(Handler):
    records = []

    def do_POST(self):
        self.records.extend(json.loads(self.body()))
        self.answer(200)


@pytest.fixture
def webhook():
    Webhook.records = []
    with http_server(Webhook) as url:
        yield url


def run(container, directory, **environment):
    """Runs a container's command, with what is mounted at /x in `directory`/x."""
    command = container["command"]
    assert command[0] == "sh"
    script = re.sub(r"(?<!\w)/(programs|config|state)/", rf"{directory}/\1/", command[-1])
    variables = {"PATH": os.environ["PATH"], **{name: str(value) for name, value in environment.items()}}
    done = subprocess.run([*command[:-1], script], env=variables, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_scripts_deliver_and_continue(path, webhook, tmp_path):
    (spec,) = pods(path)
    for name in ("programs", "config", "state"):
        (tmp_path / name).mkdir()
    with posthog("--events", "200") as sandbox:
        config = {"base_url": sandbox.url, "start_date": "2020-01-01T00:00:00Z", "method": {"type": "query"}}
        for name in ("config.json", "config-2.json"):
            (tmp_path / "config" / name).write_text(json.dumps(config))
        (tmp_path / "config/patterns.json").write_text("{}")
        (tmp_path / "config/catalog.json").write_text(json.dumps(CATALOG))
        (fetch,), (sync,) = spec["initContainers"], spec["containers"]
        assert run(fetch, tmp_path, AIRBYTE_ENTRYPOINT=SOURCE)[0] == 0
        environment = {
            "AIRBYTE_ENTRYPOINT": DESTINATION,
            "JOB_COMPLETION_INDEX": 2,
            "POSTHOG_API_KEY": sandbox.api_key,
            "PATTERNS_WEBHOOK_URL": webhook,
        }
        code, text = run(sync, tmp_path, **environment)
        assert code == 0, text
        # The stand-in has events that arrive in a while, too.
        arrived = {row[0] for row in sandbox.select("uuid", "events WHERE created_at < now() - INTERVAL 1 MINUTE")}
        assert arrived <= {record["uuid"] for record in Webhook.records} and len(arrived) > 150
        first = len(Webhook.records)
        code, text = run(sync, tmp_path, **environment)
        assert code == 0 and len(Webhook.records) < first * 2, text
        code, text = run(sync, tmp_path, **(environment | {"POSTHOG_API_KEY": "phx_wrong"}))
        assert code == 1, f"a pod that fails must not look well: {text}"


def test_terraform_configuration():
    parsed = hcl2.loads(TERRAFORM.read_text())
    resources = {name.strip('"') for resource in parsed["resource"] for name in resource}
    assert resources == {"airbyte_source_definition", "airbyte_source"}
    # The configuration of the source has only settings that there are.
    block = re.search(r"configuration = jsonencode\(\{\n(.*?)\n  \}\)", TERRAFORM.read_text(), re.DOTALL)[1]
    names = set(re.findall(r"^    (\w+) +=", block, re.MULTILINE))
    form = json.loads((ROOT / "spec.json").read_text())["connectionSpecification"]
    assert set(form["required"]) <= names <= set(form["properties"])
