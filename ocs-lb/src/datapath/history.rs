//! The last events of each kind, for `show events`.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use ocs_lb_common::abi::{Event, EventKind, Reason};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::Ticks;

use crate::model::Model;
use crate::snapshot::EventView;

/// Events of one kind that are kept: a storm of one kind does not push the
/// others out.
const KEPT: usize = 1000;

/// What happened, newest last.
#[derive(Debug, Default)]
pub(super) struct History {
    by_kind: BTreeMap<u8, VecDeque<(f64, Event<V4>)>>,
}

impl History {
    /// Keeps an event; `wall` is the wall clock at the datapath's `now`, in
    /// seconds since 1970.
    pub(super) fn push(&mut self, event: Event<V4>, wall: f64, now: Ticks) {
        let at = wall - seconds(now.since(event.at));
        let kept = self.by_kind.entry(event.kind).or_default();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((at, event));
    }

    /// All of them, in the order of their times.
    pub(super) fn views(&self, model: &Model) -> Vec<EventView> {
        let kept = self.by_kind.values().flatten();
        let mut views: Vec<_> = kept.map(|(at, event)| view(model, *at, event)).collect();
        views.sort_by(|a, b| a.at.total_cmp(&b.at));
        views
    }
}

fn seconds(ticks: u32) -> f64 {
    f64::from(ticks) * f64::from(1 << 20) / 1e9
}

fn view(model: &Model, at: f64, event: &Event<V4>) -> EventView {
    let kind = EventKind::from_number(event.kind);
    let ip = |address: V4| Ipv4Addr::from(address.0).into();
    let mut view = EventView {
        at,
        kind: kind.map_or("unknown", label).to_owned(),
        reason: Reason::from_number(event.reason).map(|reason| reason.label().to_owned()),
        ..EventView::default()
    };
    if kind == Some(EventKind::NeighborNeeded) {
        // Nothing else means anything.
        view.neighbor = Some(ip(event.client.source));
        view.ifindex = Some(event.ifindex);
        return view;
    }
    let cluster = model.clusters.get(usize::from(event.cluster));
    let name = |slot: u16| {
        let backend = cluster.and_then(|cluster| cluster.backends.get(usize::from(slot)));
        backend.map(|backend| backend.name.clone())
    };
    view.cluster = cluster.map(|cluster| cluster.name.clone());
    view.client = Some(ip(event.client.source));
    view.client_port = event.client.source_port.get();
    view.vip = Some(ip(event.client.destination));
    view.vip_port = event.client.destination_port.get();
    // Where nothing was chosen or nothing changed there is nothing to name.
    if kind != Some(EventKind::Refused) {
        view.backend = name(event.backend);
    }
    if matches!(kind, Some(EventKind::Redispatch | EventKind::Sticky))
        && event.before != event.backend
    {
        view.before = name(event.before);
    }
    if event.snat != V4::default() {
        view.snat = Some(ip(event.snat));
        view.snat_port = u16::from_be((event.snat_port & 0xffff) as u16);
    }
    view.age = seconds(event.age);
    view.bytes_in = event.bytes_in;
    view.bytes_out = event.bytes_out;
    view
}

/// A kind's name.
const fn label(kind: EventKind) -> &'static str {
    match kind {
        EventKind::NeighborNeeded => "neighbor_needed",
        EventKind::Open => "open",
        EventKind::Close => "close",
        EventKind::Redispatch => "redispatch",
        EventKind::Refused => "refused",
        EventKind::Sticky => "sticky",
    }
}

#[cfg(test)]
mod tests {
    use ocs_lb_common::abi::FlowKey;
    use ocs_lb_common::address::Be16;

    use super::*;
    use crate::config;

    fn model() -> Model {
        config::parse(config::DEFAULT, "default.yaml")
            .expect("valid")
            .model
    }

    fn event(kind: EventKind, at: u32) -> Event<V4> {
        Event {
            kind: kind as u8,
            at: Ticks(at),
            backend: 1,
            client: FlowKey::tcp(
                V4([203, 0, 113, 9]),
                Be16::new(40_000),
                V4([192, 0, 2, 1]),
                Be16::new(443),
            ),
            snat: V4([198, 51, 100, 1]),
            snat_port: u32::from(2000u16.to_be()),
            ..Event::default()
        }
    }

    #[test]
    fn a_storm_pushes_out_its_own_kind_only() {
        let mut history = History::default();
        history.push(event(EventKind::Redispatch, 1), 100.0, Ticks(1));
        for at in 0..KEPT as u32 + 5 {
            history.push(event(EventKind::Refused, at), 200.0, Ticks(at));
        }
        let views = history.views(&model());
        assert_eq!(views.len(), KEPT + 1);
        assert_eq!((&*views[0].kind, views[0].at), ("redispatch", 100.0));
    }

    #[test]
    fn times_are_the_datapaths() {
        let mut history = History::default();
        // Late in the queue, early in time; the clock wraps between.
        history.push(event(EventKind::Open, 5), 100.0, Ticks(5));
        history.push(event(EventKind::Close, u32::MAX), 100.0, Ticks(1023));
        let views = history.views(&model());
        assert_eq!(views[0].kind, "close");
        let age = 1024.0 * f64::from(1 << 20) / 1e9;
        assert!((views[0].at - (100.0 - age)).abs() < 1e-9, "{views:?}");
    }

    #[test]
    fn views_name_things() {
        let model = model();
        let mut moved = event(EventKind::Redispatch, 0);
        (moved.before, moved.reason) = (0, Reason::Silent as u8);
        let shown = view(&model, 0.0, &moved);
        assert_eq!(shown.cluster.as_deref(), Some("ocs"));
        assert_eq!(shown.backend.as_deref(), Some("OCS_Node2"));
        assert_eq!(shown.before.as_deref(), Some("OCS_Node1"));
        assert_eq!(shown.reason.as_deref(), Some("silent"));
        assert_eq!((shown.client_port, shown.vip_port), (40_000, 443));
        assert_eq!(shown.snat_port, 2000);

        let refused = view(&model, 0.0, &event(EventKind::Refused, 0));
        assert_eq!((refused.backend, refused.before), (None, None));
        let mut needed = event(EventKind::NeighborNeeded, 0);
        needed.ifindex = 7;
        let shown = view(&model, 0.0, &needed);
        assert_eq!((shown.ifindex, shown.client), (Some(7), None));
        assert_eq!(shown.neighbor, Some([203, 0, 113, 9].into()));

        let mut odd = event(EventKind::Close, 0);
        (odd.kind, odd.cluster) = (99, 99);
        let shown = view(&model, 0.0, &odd);
        assert_eq!((&*shown.kind, shown.cluster), ("unknown", None));
    }
}
