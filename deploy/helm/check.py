"""Renders the chart with sets of values, and checks each object: Kubernetes's schemas (strict), restricted pod security, and that
names, selectors and ports fit together. Values that make no sense must be refused.

    check.py FOLDER_OF_THE_PROGRAMS
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml

HERE = Path(__file__).resolve().parent
CHART = HERE / "zentra"
PAGE = HERE.parents[1] / "docs/how-to/kubernetes.md"
VERSIONS = ["1.29", "1.37"]
# Objects of other projects: Kubernetes has no schema of them.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute", "RabbitmqCluster"}
PEER = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]
ON = {"enabled": True}
GATEWAY = {**ON, "parentRefs": [{"name": "public"}], "hostnames": ["hooks.example.com"]}

VALUES = {
    "default": {},
    "two programs": {"serve": {"enabled": False}},
    "one of each": {
        "ingress": {"replicas": 1, "podDisruptionBudget": {"enabled": False}},
        "worker": {"replicas": 1, "podDisruptionBudget": {"enabled": False}},
        "topologySpread": {"enabled": False},
    },
    "strict spread": {"topologySpread": {"whenUnsatisfiable": "DoNotSchedule"}},
    "autoscaling": {"ingress": {"autoscaling": {**ON, "maxReplicas": 40}}},
    "keda with a budget": {"worker": {"keda": ON, "podDisruptionBudget": {**ON, "maxUnavailable": "25%"}}},
    "closed network": {"networkPolicy": ON},
    "open network": {
        "networkPolicy": {
            **ON, "callbacksFrom": PEER, "consoleFrom": PEER, "metricsFrom": PEER,
            "rabbitmq": {"to": [{"ipBlock": {"cidr": "10.1.0.0/24"}}], "port": 5671},
            "extraEgress": [{"to": PEER, "ports": [{"protocol": "TCP", "port": 4318}]}],
            "destinations": [{"to": PEER, "ports": [{"protocol": "TCP", "port": 443}]}],
        }
    },
    "monitoring": {
        "serviceMonitor": {**ON, "labels": {"release": "prometheus"}}, "prometheusRule": ON, "dashboards": ON,
        "serve": {"metrics": {"tokenSecret": "zentra-prometheus"}},
    },
    "monitoring without findings": {"serviceMonitor": ON},
    "gateway": {"httpRoute": {"callbacks": GATEWAY, "console": GATEWAY}, "ingress": {"service": {"port": 8080}}},
    "load balancer": {"ingress": {"service": {"type": "LoadBalancer", "annotations": {"lb": "internal"}}}},
    "private registry": {
        "image": {"repository": "registry.example.com/zentra", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}], "priorityClassName": "high",
        "podLabels": {"team": "payments"}, "podAnnotations": {"sidecar": "false"},
    },
    "traces": {"env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}]},
    "test callbacks": {"serve": {"admit": True, "replicas": 2, "podDisruptionBudget": ON}},
    "the page": yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)[1]),
    "secure": yaml.safe_load((HERE / "examples/secure-values.yaml").read_text()),
}

REFUSED = {
    "an unknown value": ({"ingres": {}}, "ingres"),
    "an unknown value inside": ({"worker": {"replica": 3}}, "replica"),
    "no replicas": ({"ingress": {"replicas": 0}}, "replicas"),
    "a number as text": ({"worker": {"replicas": "three"}}, "replicas"),
    "a short digest": ({"image": {"digest": "sha256:12"}}, "digest"),
    "no configuration": ({"config": ""}, "config"),
    "no secret": ({"existingSecret": ""}, "existingSecret"),
    "an address without a scheme": ({"worker": {"keda": {"prometheus": "prometheus:9090"}}}, "prometheus"),
    "a path as a key": ({"worker": {"secretKeys": ["../token"]}}, "secretKeys"),
    "a route without a gateway": ({"httpRoute": {"callbacks": ON}}, "parentRefs"),
}


def pods(objects):
    """Labels and specification of each pod: of Deployments, StatefulSets and pods."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            template = one["spec"]["template"]
            yield template["metadata"]["labels"], template["spec"]
        elif one["kind"] == "Pod":
            yield one["metadata"]["labels"], one["spec"]


def is_selected(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def check_security(spec):
    """Kubernetes's profile `restricted`, and no token of a service account."""
    assert spec["automountServiceAccountToken"] is False
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all({"configMap", "secret"} & volume.keys() for volume in spec["volumes"]), spec["volumes"]
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def check_probes(spec):
    for container in spec["containers"]:
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container and "httpGet" in container[probe]:
                assert container[probe]["httpGet"]["port"] in ports, (probe, ports)


def check_references(objects):
    """Selectors find pods, ports exist, and what scales or routes names what there is."""
    all_pods = list(pods(objects))
    named = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert len(named) == len(objects), "two objects have one name"

    def ports_of(selector):
        found = [spec for labels, spec in all_pods if is_selected(selector, labels)]
        assert found, f"no pod has {selector}"
        return {port["name"] for spec in found for each in spec["containers"] for port in each.get("ports", [])}

    for (kind, name), one in named.items():
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), name
        spec = one.get("spec", {})
        if kind == "Service":
            ports = ports_of(spec["selector"])
            assert all(port["targetPort"] in ports for port in spec["ports"]), (name, ports)
        elif kind == "PodDisruptionBudget":
            ports_of(spec["selector"]["matchLabels"])
        elif kind == "NetworkPolicy":
            ports = ports_of(spec["podSelector"]["matchLabels"])
            for rule in spec["ingress"] or []:
                assert rule.get("from"), f"{name} is open for everybody"
                assert all(port["port"] in ports for port in rule["ports"]), (name, ports)
        elif kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"]
            services = [it for it in objects if it["kind"] == "Service" and is_selected(wanted, it["metadata"]["labels"])]
            assert len(services) == 1, (name, [it["metadata"]["name"] for it in services])
            assert {spec["endpoints"][0]["port"]} <= {port["name"] for port in services[0]["spec"]["ports"]}
        elif kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = named["Deployment", spec["scaleTargetRef"]["name"]]
            assert "replicas" not in target["spec"], f"{name} and the Deployment both set replicas"
        elif kind == "HTTPRoute":
            for backend in spec["rules"][0]["backendRefs"]:
                ports = named["Service", backend["name"]]["spec"]["ports"]
                assert backend["port"] in {port["port"] for port in ports}


def secrets_of(objects, part):
    """The keys of the Secret that a part reads; `None` is all."""
    for labels, spec in pods(objects):
        if labels.get("app.kubernetes.io/component") == part:
            [volume] = [it["secret"] for it in spec["volumes"] if "secret" in it]
            items = volume.get("items")
            return items and {item["key"] for item in items}
    raise AssertionError(part)


def check_config(objects, programs):
    """`zentra check` accepts the configuration."""
    [config] = [one for one in objects if one["kind"] == "ConfigMap" and "zentra.toml" in one["data"]]
    text = config["data"]["zentra.toml"]
    with tempfile.TemporaryDirectory() as folder:
        ca = next(Path("/etc/ssl/certs").glob("*.pem")).read_text()
        values = {"rabbitmq_url": "amqps://z:z@rabbitmq/", "redis_url": "rediss://redis/", "seal": "0" * 64, "ca.pem": ca}
        for name in set(re.findall(r"file:/run/secrets/([-._a-zA-Z0-9]+)", text)):
            path = Path(folder, name)
            path.write_text(values.get(name, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
            path.chmod(0o600)
        file = Path(folder, "zentra.toml")
        file.write_text(text.replace("/run/secrets", folder))
        done = subprocess.run([programs / "zentra", "check", "--config", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def check_queries(objects):
    """Prometheus can read the queries of KEDA."""
    triggers = [it for one in objects if one["kind"] == "ScaledObject" for it in one["spec"]["triggers"]]
    rules = [{"record": f"keda:{it['name']}", "expr": it["metadata"]["query"]} for it in triggers]
    if rules:
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump({"groups": [{"name": "keda", "rules": rules}]}, file)
            file.flush()
            done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def check_rules(objects):
    [rule] = [one for one in objects if one["kind"] == "PrometheusRule"] or [None]
    if rule:
        original = yaml.safe_load((HERE.parent / "prometheus/rules.yml").read_text())
        assert rule["spec"] == original


def rendered(chart, values, name="zentra"):
    chart.validate_schema(values)
    files = chart.render(values=values, name=name, namespace="shop")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def check(objects, programs):
    for one in objects:
        if one["kind"] not in CUSTOM:
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)
    for _, spec in pods(objects):
        check_security(spec)
        check_probes(spec)
    check_references(objects)
    check_rules(objects)
    check_queries(objects)
    check_config(objects, programs)


def main():
    programs = Path(sys.argv[1])
    helm_python.disable_logging()
    chart = helm_python.Chart.load(CHART)
    for name, values in VALUES.items():
        for release in ("zentra", "a-release-whose-name-is-longer-than-most-others-are"):
            try:
                check(rendered(chart, values, release), programs)
            except (AssertionError, kubernetes_validate.ValidationError) as error:
                sys.exit(f"chart: {name}, as {release}: {error}")
    for name, (values, key) in REFUSED.items():
        try:
            rendered(chart, values)
        except helm_python.HelmError as error:
            if key not in str(error):
                sys.exit(f"chart: {name}: the error does not name {key}: {error}")
        else:
            sys.exit(f"chart: {name} is accepted")

    secure = rendered(chart, VALUES["secure"])
    assert not {"redis_url", "ledger_signing"} & secrets_of(secure, "ingress")
    assert "stripe" not in secrets_of(secure, "worker") | secrets_of(secure, "serve")
    for example in ("rabbitmq", "redis"):
        for one in yaml.safe_load_all((HERE / f"examples/{example}.yaml").read_text()):
            if one["kind"] not in CUSTOM:
                kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
            for _, spec in pods([one]):
                assert spec["securityContext"]["runAsNonRoot"] is True
    print(f"chart: {len(VALUES)} sets of values are valid, {len(REFUSED)} are refused")


main()
