"""The fields of KubeRay's and Kubernetes' documents and their types, as JSON schemas that know no others.

KubeRay: RayCluster and RayJob of ray.io/v1 as in release 1.7.0; what we do not use is only named there. Kubernetes:
the part of its pod template (v1), NetworkPolicy (networking.k8s.io/v1) and PodMonitor (monitoring.coreos.com/v1) that
we use.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NATURAL: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
ANYTHING: Schema = {}
QUANTITY: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
DNS_NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def fields(*required: str, **types: Schema) -> Schema:
    """An object of these fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": types,
    }


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def some(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def named(*names: str) -> dict[str, Schema]:
    """Fields that there are and that we do not use."""
    return dict.fromkeys(names, ANYTHING)


def document(version: str, kind: str, spec: Schema) -> Schema:
    metadata = fields("name", name=DNS_NAME, namespace=DNS_NAME, labels=TEXTS, annotations=TEXTS)
    return fields(
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        apiVersion=one_of(version),
        kind=one_of(kind),
        metadata=metadata,
        spec=spec,
    )


_SELECTOR = fields(matchLabels=TEXTS)
_REFERENCE = fields("name", name=DNS_NAME, optional=TRUTH)
_KEY = fields("name", "key", name=DNS_NAME, key=TEXT, optional=TRUTH)

_CONTAINER = fields(
    "name",
    "image",
    name=DNS_NAME,
    image=TEXT,
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    command=some(TEXT),
    args=some(TEXT),
    ports=some(
        fields("containerPort", name=DNS_NAME, containerPort=PORT, protocol=one_of("TCP", "UDP", "SCTP"))
    ),
    env=some(
        fields("name", name=TEXT, value=TEXT, valueFrom=fields(secretKeyRef=_KEY, configMapKeyRef=_KEY))
    ),
    envFrom=some(fields(secretRef=_REFERENCE, configMapRef=_REFERENCE, prefix=TEXT)),
    resources=fields(
        requests={"type": "object", "additionalProperties": QUANTITY},
        limits={"type": "object", "additionalProperties": QUANTITY},
    ),
    securityContext=fields(
        allowPrivilegeEscalation=TRUTH,
        readOnlyRootFilesystem=TRUTH,
        capabilities=fields(drop=some(TEXT), add=some(TEXT)),
    ),
    volumeMounts=some(
        fields("name", "mountPath", name=DNS_NAME, mountPath=TEXT, subPath=TEXT, readOnly=TRUTH)
    ),
)

_VOLUME = fields(
    "name",
    name=DNS_NAME,
    emptyDir=fields(medium=one_of("", "Memory"), sizeLimit=QUANTITY),
    secret=fields("secretName", secretName=DNS_NAME),
    persistentVolumeClaim=fields("claimName", claimName=DNS_NAME, readOnly=TRUTH),
)

POD_TEMPLATE = fields(
    "spec",
    metadata=fields(labels=TEXTS, annotations=TEXTS),
    spec=fields(
        "containers",
        containers={**some(_CONTAINER), "minItems": 1},
        volumes=some(_VOLUME),
        automountServiceAccountToken=TRUTH,
        serviceAccountName=DNS_NAME,
        terminationGracePeriodSeconds=NATURAL,
        nodeSelector=TEXTS,
        tolerations=some(
            fields(
                key=TEXT,
                operator=one_of("Exists", "Equal"),
                value=TEXT,
                effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
            )
        ),
        securityContext=fields(
            runAsNonRoot=TRUTH,
            runAsUser=NATURAL,
            runAsGroup=NATURAL,
            fsGroup=NATURAL,
            seccompProfile=fields("type", type=one_of("RuntimeDefault", "Localhost", "Unconfined")),
        ),
    ),
)

_WORKER_GROUP = fields(
    "groupName",
    "minReplicas",
    "maxReplicas",
    "template",
    groupName=DNS_NAME,
    replicas=NATURAL,
    minReplicas=NATURAL,
    maxReplicas=NATURAL,
    suspend=TRUTH,
    idleTimeoutSeconds=NATURAL,
    priority=WHOLE,
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template=POD_TEMPLATE,
    numOfHosts=NATURAL,
    **named("scaleStrategy"),
)

_CLUSTER_SPEC = fields(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=fields(mode=one_of("disabled", "token"), secretName=DNS_NAME, enableK8sTokenAuth=TRUTH),
    suspend=TRUTH,
    managedBy=one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    enableInTreeAutoscaling=TRUTH,
    headServiceAnnotations=TEXTS,
    upgradeStrategy=fields(type=one_of("Recreate", "None")),
    tlsOptions=fields(enabled=TRUTH),
    headGroupSpec=fields(
        "template",
        template=POD_TEMPLATE,
        rayStartParams=TEXTS,
        serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
        enableIngress=TRUTH,
        resources=TEXTS,
        labels=TEXTS,
        **named("headService", "ingressOptions"),
    ),
    workerGroupSpecs=some(_WORKER_GROUP),
    **named("autoscalerOptions", "gcsFaultToleranceOptions", "historyServerOptions", "networkPolicy"),
)

_JOB_SPEC = fields(
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    metadata=TEXTS,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterPodTemplate=POD_TEMPLATE,
    submitterConfig=fields(backoffLimit=NATURAL),
    clusterSelector=TEXTS,
    backoffLimit=NATURAL,
    activeDeadlineSeconds=NATURAL,
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=TRUTH,
    ttlSecondsAfterFinished=NATURAL,
    suspend=TRUTH,
    managedBy=one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    rayClusterSpec=_CLUSTER_SPEC,
    **named("deletionStrategy"),
)

_PEER = fields(podSelector=_SELECTOR, namespaceSelector=_SELECTOR)

KINDS: dict[str, Schema] = {
    "RayCluster": document("ray.io/v1", "RayCluster", _CLUSTER_SPEC),
    "RayJob": document("ray.io/v1", "RayJob", _JOB_SPEC),
    "NetworkPolicy": document(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        fields(
            "podSelector",
            podSelector=_SELECTOR,
            policyTypes=some(one_of("Ingress", "Egress")),
            ingress=some(
                fields(
                    **{"from": some(_PEER)},
                    ports=some(fields(protocol=one_of("TCP", "UDP", "SCTP"), port=PORT)),
                )
            ),
        ),
    ),
    "PodMonitor": document(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        fields(
            "selector",
            "podMetricsEndpoints",
            selector=_SELECTOR,
            podMetricsEndpoints=some(
                fields("port", port=TEXT, interval={"type": "string", "pattern": r"^\d+(s|m)$"}, path=TEXT)
            ),
        ),
    ),
}
