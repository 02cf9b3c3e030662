//! Where a webhook is: the URL it states, or a pod behind the service it names. Pure.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use moorline_schema::selector::LabelSelector;
use serde_json::Value;

use super::client::Target;
use crate::objects::{metadata, tree};

const HTTPS_PORT: u16 = 443;

/// What a configuration says of where to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// At an address.
    Url { target: Target, path: String },
    /// At a service of the cluster.
    Service {
        namespace: String,
        name: String,
        port: u16,
        path: String,
        authorities: Arc<str>,
    },
}

/// Reads a `clientConfig`; an error says what is wrong with it.
pub(crate) fn read(config: &Value) -> Result<Place, String> {
    let bundle = tree::text(config, &["caBundle"]);
    let authorities = BASE64_STANDARD
        .decode(bundle)
        .map_err(|error| format!("caBundle: {error}"))?;
    let authorities: Arc<str> = String::from_utf8_lossy(&authorities).as_ref().into();
    if let Some(service) = tree::at(config, &["service"]) {
        let port = tree::at(service, &["port"]).and_then(Value::as_u64);
        return Ok(Place::Service {
            namespace: tree::text(service, &["namespace"]).to_owned(),
            name: tree::text(service, &["name"]).to_owned(),
            port: port
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(HTTPS_PORT),
            path: rooted(tree::text(service, &["path"])),
            authorities,
        });
    }
    let url = tree::text(config, &["url"]);
    if url.is_empty() {
        return Err("webhook configuration must have either service or URL".to_owned());
    }
    let unparsable = |why: &str| format!("Unparsable URL: {url}: {why}");
    let parsed: http::Uri = url
        .parse()
        .map_err(|error: http::uri::InvalidUri| unparsable(&error.to_string()))?;
    let authority = parsed.authority().ok_or_else(|| unparsable("it has no host"))?;
    let host = authority.host().to_owned();
    Ok(Place::Url {
        target: Target {
            authority: authority.as_str().to_owned(),
            server_name: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            host,
            port: authority.port_u16().unwrap_or(HTTPS_PORT),
            authorities,
        },
        path: rooted(parsed.path()),
    })
}

fn rooted(path: &str) -> String {
    match path.strip_prefix('/') {
        Some(_) => path.to_owned(),
        None => format!("/{path}"),
    }
}

/// What there is behind a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behind {
    pub(crate) service: Option<Value>,
    pub(crate) slices: Vec<Value>,
    pub(crate) endpoints: Option<Value>,
    /// The pods of its namespace.
    pub(crate) pods: Vec<Value>,
}

/// An address and port behind a service: of a slice, of its endpoints, or, since nobody may have made these, of a ready pod
/// that it selects.
pub(crate) fn resolve(
    namespace: &str,
    name: &str,
    port: u16,
    behind: &Behind,
) -> Result<(String, u16), String> {
    let service = behind
        .service
        .as_ref()
        .ok_or_else(|| format!("service {name:?} not found"))?;
    let mut ports = tree::list(service, &["spec", "ports"]).iter();
    let wanted = ports.find(|one| tree::at(one, &["port"]).and_then(Value::as_u64) == Some(u64::from(port)));
    if tree::text(service, &["spec", "type"]) == "ExternalName" {
        return Ok((tree::text(service, &["spec", "externalName"]).to_owned(), port));
    }
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = tree::text(wanted, &["name"]);
    let of_slices = behind.slices.iter().find_map(|slice| in_slice(slice, port_name));
    let of_endpoints = || {
        behind
            .endpoints
            .as_ref()
            .and_then(|endpoints| in_endpoints(endpoints, port_name))
    };
    let of_pods = || behind.pods.iter().find_map(|pod| in_pod(pod, service, wanted));
    of_slices
        .or_else(of_endpoints)
        .or_else(of_pods)
        .ok_or_else(|| format!("no endpoints available for service {name:?} in namespace {namespace:?}"))
}

fn number(object: &Value, path: &[&str]) -> Option<u16> {
    let number = tree::at(object, path)?.as_u64()?;
    u16::try_from(number).ok()
}

fn named_port(ports: &[Value], name: &str) -> Option<u16> {
    let found = ports.iter().find(|port| tree::text(port, &["name"]) == name);
    number(found?, &["port"])
}

fn in_slice(slice: &Value, port_name: &str) -> Option<(String, u16)> {
    let port = named_port(tree::list(slice, &["ports"]), port_name)?;
    let is_ready =
        |endpoint: &&Value| tree::at(endpoint, &["conditions", "ready"]) != Some(&Value::Bool(false));
    let endpoint = tree::list(slice, &["endpoints"]).iter().find(is_ready)?;
    let address = tree::list(endpoint, &["addresses"]).first()?.as_str()?;
    Some((address.to_owned(), port))
}

fn in_endpoints(endpoints: &Value, port_name: &str) -> Option<(String, u16)> {
    tree::list(endpoints, &["subsets"]).iter().find_map(|subset| {
        let port = named_port(tree::list(subset, &["ports"]), port_name)?;
        let address = tree::list(subset, &["addresses"]).first()?;
        Some((tree::text(address, &["ip"]).to_owned(), port))
    })
}

fn in_pod(pod: &Value, service: &Value, wanted: &Value) -> Option<(String, u16)> {
    let selector = tree::at(service, &["spec", "selector"])?;
    let selector = LabelSelector::from_object(&serde_json::json!({ "matchLabels": selector }));
    let labels = tree::at(pod, &["metadata", "labels"]).and_then(Value::as_object);
    let mut conditions = tree::list(pod, &["status", "conditions"]).iter();
    let is_ready =
        conditions.any(|one| tree::text(one, &["type"]) == "Ready" && tree::text(one, &["status"]) == "True");
    let address = tree::text(pod, &["status", "podIP"]);
    if selector.is_empty()
        || !selector.matches(labels)
        || !is_ready
        || address.is_empty()
        || metadata::is_deleting(pod)
    {
        return None;
    }
    let port = match tree::at(wanted, &["targetPort"]) {
        Some(Value::String(name)) => {
            let containers = tree::list(pod, &["spec", "containers"]).iter();
            let mut ports = containers.flat_map(|container| tree::list(container, &["ports"]));
            number(
                ports.find(|port| tree::text(port, &["name"]) == name)?,
                &["containerPort"],
            )?
        }
        Some(_) => number(wanted, &["targetPort"])?,
        None => number(wanted, &["port"])?,
    };
    Some((address.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places() {
        let url = |url: &str| read(&json!({"url": url}));
        let cases = [
            (
                "https://hooks.example.com/v?x=1",
                "hooks.example.com",
                443,
                "hooks.example.com",
                "/v",
            ),
            ("https://127.0.0.1:8443", "127.0.0.1", 8443, "127.0.0.1", "/"),
            ("https://[::1]:1/a/b", "[::1]", 1, "::1", "/a/b"),
        ];
        for (text, host, port, server_name, path) in cases {
            let Ok(Place::Url { target, path: found }) = url(text) else {
                panic!("{text} is a URL");
            };
            assert_eq!(
                (&*target.host, target.port, &*target.server_name, &*found),
                (host, port, server_name, path)
            );
        }
        assert!(url("https:///x").is_err() && read(&json!({})).is_err());
        let service = read(&json!({"service": {"namespace": "n", "name": "s"}, "caBundle": ""})).unwrap();
        let Place::Service { port, path, .. } = service else {
            panic!("a service is one");
        };
        assert_eq!((port, &*path), (443, "/"));
    }

    #[test]
    fn addresses_behind_a_service() {
        let service = json!({"spec": {"selector": {"app": "hook"}, "ports": [{"name": "https", "port": 443, "targetPort": "web"}]}});
        let pod = |ready: &str| {
            json!({"metadata": {"labels": {"app": "hook"}}, "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 9443}]}]},
            "status": {"podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let slice = json!({"ports": [{"name": "https", "port": 8443}], "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"]}]});
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "https", "port": 8444}]}]});
        let with = |slices: Vec<Value>, endpoints: Option<Value>, pods: Vec<Value>| Behind {
            service: Some(service.clone()),
            slices,
            endpoints,
            pods,
        };
        let external = Behind {
            service: Some(json!({"spec": {"type": "ExternalName", "externalName": "example.com"}})),
            ..Behind::default()
        };
        let cases = [
            (
                "a ready endpoint",
                with(vec![slice], Some(endpoints.clone()), vec![]),
                443,
                Ok(("10.0.0.2", 8443)),
            ),
            (
                "endpoints",
                with(vec![], Some(endpoints), vec![]),
                443,
                Ok(("10.0.0.3", 8444)),
            ),
            (
                "a pod",
                with(vec![], None, vec![pod("False"), pod("True")]),
                443,
                Ok(("10.0.0.9", 9443)),
            ),
            (
                "none is ready",
                with(vec![], None, vec![pod("False")]),
                443,
                Err("no endpoints available for service \"s\" in namespace \"n\""),
            ),
            (
                "no such port",
                with(vec![], None, vec![pod("True")]),
                80,
                Err("no service port 80 found for service \"s\""),
            ),
            (
                "no such service",
                Behind::default(),
                443,
                Err("service \"s\" not found"),
            ),
            ("elsewhere", external, 443, Ok(("example.com", 443))),
        ];
        for (case, behind, port, expected) in cases {
            let found = resolve("n", "s", port, &behind);
            let expected = expected
                .map(|(host, port)| (host.to_owned(), port))
                .map_err(str::to_owned);
            assert_eq!(found, expected, "{case}");
        }
    }
}
