//! Which clusters, backends, flows and entries a `show` is about.

use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use crate::snapshot::{BackendView, ClusterView, EventView, FlowView, SnatView, StickyView};

/// Conditions that must all hold; an absent one always does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Cluster's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Backend's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Endpoint>,
    /// VIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<Endpoint>,
    /// SNAT address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snat: Option<Endpoint>,
    /// State, as the view names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Seconds since the last packet, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_secs: Option<f64>,
}

impl Filter {
    /// Names of the conditions that are set, as the request spells them.
    pub fn used(&self) -> Vec<&'static str> {
        [
            ("cluster", self.cluster.is_some()),
            ("backend", self.backend.is_some()),
            ("client", self.client.is_some()),
            ("vip", self.vip.is_some()),
            ("snat", self.snat.is_some()),
            ("state", self.state.is_some()),
            ("older_than_secs", self.older_than_secs.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }

    /// Whether a flow is meant.
    pub fn flow(&self, flow: &FlowView) -> bool {
        named(&self.cluster, &flow.cluster)
            && named(&self.backend, &flow.backend)
            && named(&self.state, &flow.state)
            && self
                .client
                .is_none_or(|e| e.matches(flow.client, flow.client_port))
            && self.vip.is_none_or(|e| e.matches(flow.vip, flow.vip_port))
            && self
                .snat
                .is_none_or(|e| e.matches(flow.snat, flow.snat_port))
            && self
                .older_than_secs
                .is_none_or(|seconds| flow.idle >= seconds)
    }

    /// Whether a sticky entry is meant; a client's port says nothing here.
    pub fn sticky(&self, entry: &StickyView) -> bool {
        named(&self.cluster, &entry.cluster)
            && named(&self.backend, &entry.backend)
            && self.client.is_none_or(|e| e.address == entry.client)
    }

    /// Whether an event is meant. What it does not name is not asked for.
    pub fn event(&self, event: &EventView) -> bool {
        let names =
            |wanted: &Option<String>, given: &Option<String>| wanted.is_none() || wanted == given;
        let at = |wanted: Option<Endpoint>, address: Option<_>, port| {
            wanted.is_none_or(|e| address.is_some_and(|address| e.matches(address, port)))
        };
        let on = names(&self.backend, &event.backend)
            || (event.before.is_some() && names(&self.backend, &event.before));
        names(&self.cluster, &event.cluster)
            && on
            && at(self.client, event.client, event.client_port)
            && at(self.vip, event.vip, event.vip_port)
            && at(self.snat, event.snat, event.snat_port)
    }

    /// Whether a backend of a cluster is meant.
    pub fn backend(&self, cluster: &str, backend: &BackendView) -> bool {
        named(&self.cluster, cluster)
            && named(&self.backend, &backend.name)
            && named(&self.state, &backend.state)
    }

    /// The clusters with the backends that are meant. A cluster that is not
    /// asked for by name stays only for its backends.
    pub fn clusters(&self, clusters: Vec<ClusterView>) -> Vec<ClusterView> {
        let by_backend = self.backend.is_some() || self.state.is_some();
        clusters
            .into_iter()
            .filter(|cluster| named(&self.cluster, &cluster.name))
            .map(|mut cluster| {
                let name = cluster.name.clone();
                cluster
                    .backends
                    .retain(|backend| self.backend(&name, backend));
                cluster
            })
            .filter(|cluster| !by_backend || !cluster.backends.is_empty())
            .collect()
    }

    /// Whether the ports of a destination are meant; they are counted for all
    /// SNAT ports together, so the filter's port says nothing here.
    pub fn snat(&self, destination: &SnatView) -> bool {
        named(&self.cluster, &destination.cluster)
            && named(&self.backend, &destination.backend)
            && self
                .snat
                .is_none_or(|e| e.address.to_string() == destination.address)
    }
}

fn named(wanted: &Option<String>, name: &str) -> bool {
    wanted.as_deref().is_none_or(|wanted| wanted == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> FlowView {
        FlowView {
            cluster: "ocs".into(),
            client: [203, 0, 113, 5].into(),
            client_port: 50000,
            vip: [192, 0, 2, 1].into(),
            vip_port: 443,
            snat: [198, 51, 100, 1].into(),
            snat_port: 2000,
            backend: "OCS_Node1".into(),
            backend_address: [198, 51, 100, 10].into(),
            backend_port: 443,
            state: "established".into(),
            idle: 90.0,
            bytes_in: 1,
            bytes_out: 2,
            packets_in: 3,
            packets_out: 4,
        }
    }

    fn filter(json: &str) -> Filter {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_condition_of_a_flow_must_hold() {
        for (json, expected) in [
            ("{}", true),
            (r#"{"cluster": "ocs", "backend": "OCS_Node1"}"#, true),
            (r#"{"cluster": "ocs", "backend": "OCS_Node2"}"#, false),
            (r#"{"cluster": "lync"}"#, false),
            (r#"{"client": "203.0.113.5"}"#, true),
            (r#"{"client": "203.0.113.5:50000"}"#, true),
            (r#"{"client": "203.0.113.5:50001"}"#, false),
            (
                r#"{"vip": "192.0.2.1:443", "snat": "198.51.100.1:2000"}"#,
                true,
            ),
            (r#"{"vip": "192.0.2.1:444"}"#, false),
            (r#"{"snat": "198.51.100.2"}"#, false),
            (r#"{"state": "established"}"#, true),
            (r#"{"state": "half-open"}"#, false),
            (r#"{"older_than_secs": 90}"#, true),
            (r#"{"older_than_secs": 90.5}"#, false),
        ] {
            assert_eq!(filter(json).flow(&flow()), expected, "{json}");
        }
    }

    #[test]
    fn clusters_keep_what_is_meant() {
        let cluster = |name: &str, states: &[&str]| ClusterView {
            name: name.into(),
            backends: states
                .iter()
                .map(|state| BackendView {
                    name: format!("{name}-{state}"),
                    state: (*state).into(),
                    ..BackendView::default()
                })
                .collect(),
            ..ClusterView::default()
        };
        let all = vec![
            cluster("a", &["up", "down"]),
            cluster("b", &["up"]),
            cluster("c", &[]),
        ];
        for (json, expected) in [
            ("{}", "a-up a-down b-up | a b c"),
            (r#"{"cluster": "c"}"#, " | c"),
            (r#"{"state": "down"}"#, "a-down | a"),
            (r#"{"cluster": "b", "state": "down"}"#, " | "),
            (r#"{"backend": "b-up"}"#, "b-up | b"),
        ] {
            let kept = filter(json).clusters(all.clone());
            let backends: Vec<_> = kept
                .iter()
                .flat_map(|c| &c.backends)
                .map(|b| &*b.name)
                .collect();
            let names: Vec<_> = kept.iter().map(|c| &*c.name).collect();
            assert_eq!(
                format!("{} | {}", backends.join(" "), names.join(" ")),
                expected,
                "{json}"
            );
        }
    }

    #[test]
    fn events_are_those_that_name_it() {
        let moved = EventView {
            cluster: Some("ocs".into()),
            client: Some([203, 0, 113, 5].into()),
            client_port: 50000,
            backend: Some("b".into()),
            before: Some("a".into()),
            ..EventView::default()
        };
        let needed = EventView::default();
        for (json, is_moved, is_needed) in [
            ("{}", true, true),
            (r#"{"cluster": "ocs"}"#, true, false),
            (r#"{"cluster": "lync"}"#, false, false),
            (r#"{"backend": "a"}"#, true, false),
            (r#"{"backend": "b"}"#, true, false),
            (r#"{"backend": "c"}"#, false, false),
            (r#"{"client": "203.0.113.5"}"#, true, false),
            (r#"{"client": "203.0.113.5:1"}"#, false, false),
            (r#"{"snat": "198.51.100.1"}"#, false, false),
        ] {
            let filter = filter(json);
            assert_eq!(filter.event(&moved), is_moved, "{json}");
            assert_eq!(filter.event(&needed), is_needed, "{json}");
        }
    }

    #[test]
    fn sticky_and_snat_look_at_addresses() {
        let entry = StickyView {
            cluster: "ocs".into(),
            client: [203, 0, 113, 5].into(),
            backend: "OCS_Node1".into(),
            expires_in: 3.0,
        };
        assert!(filter(r#"{"client": "203.0.113.5"}"#).sticky(&entry));
        assert!(!filter(r#"{"client": "203.0.113.6"}"#).sticky(&entry));
        let destination = SnatView {
            cluster: "ocs".into(),
            address: "198.51.100.1".into(),
            ..SnatView::default()
        };
        assert!(filter(r#"{"snat": "198.51.100.1:9"}"#).snat(&destination));
        assert!(!filter(r#"{"snat": "198.51.100.2"}"#).snat(&destination));
    }
}
