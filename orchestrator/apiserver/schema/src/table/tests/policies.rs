//! The kinds that limit, scale, rank and admit others, and those of the network.

use serde_json::json;

use super::printed;

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn they_print_as_upstream_does() {
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
    let used =
        json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}});
    let cases = [
        (
            ("policy", "PodDisruptionBudget"),
            json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}}),
            json!({"Min Available": "50%", "Max Unavailable": "N/A", "Allowed Disruptions": 2}),
        ),
        (
            ("", "ResourceQuota"),
            json!({"status": {"hard": {"pods": "3", "limits.cpu": "2"}, "used": {"pods": "1"}}}),
            json!({"Request": "pods: 1/3", "Limit": "limits.cpu: 0/2"}),
        ),
        (
            ("scheduling.k8s.io", "PriorityClass"),
            json!({"value": 7, "preemptionPolicy": "Never"}),
            json!({"Value": 7, "Global-Default": false, "PreemptionPolicy": "Never"}),
        ),
        (
            ("autoscaling", "HorizontalPodAutoscaler"),
            json!({"spec": {"minReplicas": 1, "maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "w"}, "metrics": [metric]},
                "status": {"currentReplicas": 2, "currentMetrics": [used]}}),
            json!({"Reference": "Deployment/w", "Targets": "cpu: 12%/80%", "MinPods": "1", "MaxPods": 5, "Replicas": 2}),
        ),
        (
            ("certificates.k8s.io", "CertificateSigningRequest"),
            json!({"spec": {"signerName": "a.b/c", "username": "anna", "expirationSeconds": 3600},
                "status": {"conditions": [{"type": "Approved"}], "certificate": "AA=="}}),
            json!({"SignerName": "a.b/c", "Requestor": "anna", "RequestedDuration": "60m", "Condition": "Approved,Issued"}),
        ),
        (
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
            json!({"spec": {"validations": [{}, {}], "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}}),
            json!({"Validations": 2, "ParamKind": "v1/ConfigMap"}),
        ),
        (
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
            json!({"spec": {"policyName": "p", "paramRef": {"namespace": "n", "name": "m"}}}),
            json!({"PolicyName": "p", "ParamRef": "n/m"}),
        ),
        (
            ("apiregistration.k8s.io", "APIService"),
            json!({"spec": {"service": {"namespace": "n", "name": "s"}}, "status": {"conditions": [{"type": "Available", "status": "False", "reason": "Gone"}]}}),
            json!({"Service": "n/s", "Available": "False (Gone)"}),
        ),
        (
            ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 30}}}),
            json!({"Type": "Limited", "NominalConcurrencyShares": "30", "Queues": "<none>"}),
        ),
        (
            ("networking.k8s.io", "Ingress"),
            json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}], "tls": [{}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
            json!({"Class": "<none>", "Hosts": "a,b", "Address": "1.2.3.4", "Ports": "80, 443"}),
        ),
        (
            ("networking.k8s.io", "IngressClass"),
            json!({"spec": {"controller": "a/b", "parameters": {"apiGroup": "k.io", "kind": "P", "name": "n"}}}),
            json!({"Controller": "a/b", "Parameters": "P.k.io/n"}),
        ),
        (
            ("networking.k8s.io", "NetworkPolicy"),
            json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}),
            json!({"Pod-Selector": "a=b"}),
        ),
        (
            ("discovery.k8s.io", "EndpointSlice"),
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3", "4"]}]}),
            json!({"AddressType": "IPv4", "Ports": "80", "Endpoints": "1,2,3 + 1 more..."}),
        ),
        (
            ("networking.k8s.io", "IPAddress"),
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}}),
            json!({"ParentRef": "services/n/s"}),
        ),
        (
            ("resource.k8s.io", "ResourceClaim"),
            json!({"status": {"allocation": {}, "reservedFor": [{}]}}),
            json!({"State": "allocated,reserved"}),
        ),
    ];
    for ((group, kind), mut object, expected) in cases {
        object["metadata"] = json!({"name": "x"});
        let cells = printed(group, kind, object);
        for (heading, value) in expected.as_object().unwrap() {
            assert_eq!(&cells[heading], value, "{kind} {heading}");
        }
    }
}
