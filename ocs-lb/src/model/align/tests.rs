//! Ids over reloads: one case each, then random sequences of edits.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config;
use crate::model::edits::{MapEdit, Reach, plan};
use crate::model::test_cluster;

/// `(backend, last byte of its address)` of a cluster in the file.
type Backends = Vec<(&'static str, u8)>;
/// The clusters of a file.
type File = Vec<(&'static str, Backends)>;
/// Whether flows carry an id, or a slot.
type Busy = fn(u16, Option<u16>) -> bool;

fn address(last: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, last])
}

/// A model of the file; every backend is checked.
fn model(file: &[(&'static str, Backends)]) -> Model {
    let loaded = config::parse(config::DEFAULT, "default.yaml").expect("valid");
    let check = &loaded.model.clusters[0].backends[0].check;
    let cluster = |(name, backends): &(&str, Vec<(&str, u8)>)| {
        let mut cluster = test_cluster(&vec![(3, false); backends.len()]);
        cluster.name = (*name).to_owned();
        for (backend, (name, last)) in cluster.backends.iter_mut().zip(backends) {
            backend.name = (*name).to_owned();
            backend.address = address(*last);
            backend.check.clone_from(check);
        }
        cluster
    };
    Model {
        clusters: file.iter().map(cluster).collect(),
        ..loaded.model
    }
}

/// `a: x.1 (y.2)`, clusters and backends by id, in brackets what is retired.
fn shown(model: &Model) -> String {
    let mark = |retired: bool, text: String| if retired { format!("({text})") } else { text };
    let backend = |backend: &Backend| {
        let IpAddr::V4(ip) = backend.address else {
            panic!("IPv4");
        };
        let text = format!("{}.{}", backend.name, ip.octets()[3]);
        mark(backend.retired, text)
    };
    let cluster = |cluster: &Cluster| {
        let backends: Vec<_> = cluster.backends.iter().map(backend).collect();
        let name = mark(cluster.retired, cluster.name.clone());
        format!("{name}: {}", backends.join(" "))
    };
    let clusters: Vec<_> = model.clusters.iter().map(cluster).collect();
    clusters.join(", ")
}

fn idle(_: u16, _: Option<u16>) -> bool {
    false
}

fn busy(_: u16, _: Option<u16>) -> bool {
    true
}

fn after(
    old: &Model,
    file: &[(&'static str, Backends)],
    busy: impl Fn(u16, Option<u16>) -> bool,
) -> Model {
    align(&Ids::of(old), Some(old), model(file), busy).expect("places enough")
}

#[test]
fn backends_keep_their_slots() {
    let old = model(&[("a", vec![("x", 1), ("y", 2), ("z", 3)])]);
    let both = [idle, busy];
    let one: [Busy; 1] = [|_, slot| slot == Some(1)];
    let cases: [(&str, Backends, &[Busy], &str); 9] = [
        (
            "reordered",
            vec![("z", 3), ("x", 1), ("y", 2)],
            &both,
            "x.1 y.2 z.3",
        ),
        (
            "removed in the middle",
            vec![("x", 1), ("z", 3)],
            &both,
            "x.1 (y.2) z.3",
        ),
        ("removed at the end, idle", vec![("x", 1)], &[idle], "x.1"),
        (
            "removed at the end, busy",
            vec![("x", 1)],
            &[busy],
            "x.1 (y.2) (z.3)",
        ),
        ("the last is idle", vec![("x", 1)], &one, "x.1 (y.2)"),
        (
            "another in a free place",
            vec![("n", 9), ("x", 1), ("z", 3)],
            &[idle],
            "x.1 n.9 z.3",
        ),
        (
            "another beside a busy place",
            vec![("n", 9), ("x", 1), ("z", 3)],
            &one,
            "x.1 (y.2) z.3 n.9",
        ),
        (
            "another address, idle",
            vec![("x", 1), ("y", 8), ("z", 3)],
            &[idle],
            "x.1 y.8 z.3",
        ),
        (
            "another address, busy",
            vec![("x", 1), ("y", 8), ("z", 3)],
            &one,
            "x.1 (y.2) z.3 y.8",
        ),
    ];
    for (case, backends, states, wanted) in cases {
        for state in states {
            let new = after(&old, &[("a", backends.clone())], state);
            assert_eq!(shown(&new), format!("a: {wanted}"), "{case}");
        }
    }
}

#[test]
fn clusters_keep_their_ids() {
    let x = || vec![("x", 1)];
    let old = model(&[("a", x()), ("b", x()), ("c", x())]);
    let cases: [(&str, &[&'static str], Busy, &str); 6] = [
        (
            "reordered",
            &["c", "a", "b"],
            busy,
            "a: x.1, b: x.1, c: x.1",
        ),
        (
            "removed, busy",
            &["c", "a"],
            busy,
            "a: x.1, (b): (x.1), c: x.1",
        ),
        ("removed, idle", &["c", "a"], idle, "a: x.1, (b): , c: x.1"),
        (
            "renamed, idle",
            &["a", "n", "c"],
            idle,
            "a: x.1, n: x.1, c: x.1",
        ),
        (
            "renamed, busy",
            &["a", "n", "c"],
            busy,
            "a: x.1, (b): (x.1), c: x.1, n: x.1",
        ),
        (
            "a slot alone is busy",
            &["a", "n"],
            |id, slot| (id, slot) == (1, Some(0)),
            "a: x.1, (b): (x.1), n: x.1",
        ),
    ];
    for (case, names, state, wanted) in cases {
        let file: File = names.iter().map(|name| (*name, x())).collect();
        assert_eq!(shown(&after(&old, &file, state)), wanted, "{case}");
    }
}

#[test]
fn what_comes_back_comes_alive_in_its_place() {
    let old = model(&[("a", vec![("x", 1), ("y", 2)]), ("b", vec![("x", 1)])]);
    let less = after(&old, &[("b", vec![("x", 1)])], busy);
    assert_eq!(shown(&less), "(a): (x.1) (y.2), b: x.1");
    let more = vec![("b", vec![("n", 7), ("x", 1)]), ("a", vec![("y", 2)])];
    let more = after(&less, &more, busy);
    assert_eq!(shown(&more), "a: (x.1) y.2, b: x.1 n.7");
    let back = &more.clusters[0].backends[1];
    assert!(back.check.is_some() && !more.clusters[0].vips.is_empty());
}

#[test]
fn what_is_retired_is_what_it_was() {
    let mut old = model(&[("a", vec![("x", 1), ("y", 2)]), ("b", vec![("x", 1)])]);
    old.clusters[0].timeouts.client = Duration::from_secs(77);
    old.clusters[0].backends[1].port = Some(4443);
    let new = after(&old, &[("b", vec![("x", 1)])], busy);
    let retired = &new.clusters[0];
    assert_eq!(retired.timeouts.client, Duration::from_secs(77));
    assert_eq!((retired.vips.len(), retired.ports.len()), (0, 0));
    assert_eq!(retired.backends[1].port, Some(4443));
    assert!(
        retired
            .backends
            .iter()
            .all(|b| b.retired && b.check.is_none())
    );

    // Of a model that nobody has any more the names are left.
    let new = align(&Ids::of(&old), None, model(&[("b", vec![("x", 1)])]), busy);
    let new = new.expect("places enough");
    assert_eq!(shown(&new), "(a): (x.1) (y.2), b: x.1");
    assert_eq!(new.clusters[0].timeouts.client, Duration::from_secs(1800));
    assert_eq!(new.clusters[0].backends[1].port, None);

    // A model that does not belong to the names is not asked.
    let other = model(&[("z", vec![("q", 9)])]);
    let file = model(&[("b", vec![("x", 1)])]);
    let new = align(&Ids::of(&old), Some(&other), file, busy).expect("places enough");
    assert_eq!(shown(&new), "(a): (x.1) (y.2), b: x.1");
}

#[test]
fn a_stub_has_the_documented_defaults() {
    let text = "version: 1\nclusters:\n  - name: a\n    vips: [192.0.2.1]\n    ports: [443]\n    \
                sticky: off\n    backends: [{name: x, address: 198.51.100.1}]\n";
    let mut file = config::parse(text, "t.yaml").expect("valid").model;
    let mut wanted = file.clusters.remove(0);
    (wanted.vips, wanted.ports, wanted.backends) = (vec![], vec![], vec![]);
    wanted.retired = true;
    assert_eq!(stub("a"), wanted);
}

#[test]
fn nothing_known_keeps_the_order_of_the_file() {
    let file = model(&[("b", vec![("y", 2), ("x", 1)]), ("a", vec![("x", 1)])]);
    let new = align(&Ids::default(), None, file.clone(), busy);
    assert_eq!(new, Ok(file.clone()));
    // And the same file again changes nothing.
    assert_eq!(
        after(
            &file,
            &[("a", vec![("x", 1)]), ("b", vec![("x", 1), ("y", 2)])],
            busy
        ),
        file
    );
}

#[test]
fn flows_of_what_is_retired_keep_their_addresses() {
    let old = model(&[("a", vec![("x", 1)]), ("b", vec![("x", 1), ("y", 2)])]);
    let new = after(&old, &[("b", vec![("y", 2)])], busy);
    let reach = |last: u8| Reach {
        snat: vec![[203, 0, 113, last].into()],
        ports: (1024, 2047),
        next_hop: 1,
    };
    let reach = [vec![reach(1)], vec![reach(2), reach(3)]];
    let edits = plan(&new, &reach, &[]).expect("it fits");
    let count = |wanted: fn(&MapEdit) -> bool| edits.iter().filter(|e| wanted(e)).count();
    assert_eq!(count(|e| matches!(e, MapEdit::Backend(..))), 3);
    assert_eq!(
        count(|e| matches!(e, MapEdit::Address(..))),
        3 + 1,
        "SNAT and the VIP of b"
    );
    assert_eq!(
        count(|e| matches!(e, MapEdit::Service(_, s) if s.cluster == 0)),
        0
    );
    assert_eq!(
        count(|e| matches!(e, MapEdit::Service(_, s) if s.cluster == 1)),
        1
    );
}

#[test]
fn too_many() {
    let numbered = |range: std::ops::Range<usize>| -> Vec<Cluster> {
        let named = |i: usize| {
            let mut cluster = test_cluster(&[]);
            cluster.name = format!("c{i}");
            cluster
        };
        range.map(named).collect()
    };
    let mut old = model(&[]);
    old.clusters = numbered(0..200);
    let mut new = old.clone();
    new.clusters = numbered(150..300);
    let error = align(&Ids::of(&old), Some(&old), new.clone(), busy).expect_err("no room");
    assert_eq!(
        error.to_string(),
        "cluster c256: 300 clusters with removed ones that have flows; allowed: at most 256"
    );
    let aligned = align(&Ids::of(&old), Some(&old), new, idle).expect("room");
    assert_eq!(aligned.clusters.len(), 200);

    let backends = |range: std::ops::Range<usize>| {
        let mut model = model(&[("a", vec![("x", 1)])]);
        let first = model.clusters[0].backends.remove(0);
        model.clusters[0].backends = range
            .map(|i| Backend {
                name: format!("b{i}"),
                ..first.clone()
            })
            .collect();
        model
    };
    let (old, new) = (backends(0..200), backends(199..300));
    let error = align(&Ids::of(&old), Some(&old), new.clone(), busy).expect_err("no room");
    assert_eq!(
        error.to_string(),
        "cluster a: 300 backends with removed ones that have flows; allowed: at most 256"
    );
    assert!(align(&Ids::of(&old), None, new, idle).is_ok());
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Any clusters of five in any order, each with any backends of five, each at
/// one of two addresses.
fn file() -> impl Strategy<Value = File> {
    let some = || prop::sample::subsequence(&NAMES[..], 0..=NAMES.len()).prop_shuffle();
    let backends = (some(), prop::collection::vec(any::<bool>(), NAMES.len()));
    let backends = backends.prop_map(|(names, moved)| {
        let at = |(name, moved): (&'static str, bool)| {
            (name, name.as_bytes()[0] + 100 * u8::from(moved))
        };
        names.into_iter().zip(moved).map(at).collect()
    });
    let clusters = (some(), prop::collection::vec(backends, NAMES.len()));
    clusters.prop_map(|(names, backends)| names.into_iter().zip(backends).collect())
}

/// What a reload must keep, from one model to the next.
fn holds(old: &Model, new: &Model, file: &[(&'static str, Backends)], busy: &BTreeSet<(u16, u16)>) {
    let is_busy = |id: usize, slot: usize| busy.contains(&(id as u16, slot as u16));
    for (id, was) in old.clusters.iter().enumerate() {
        let now = new.clusters.iter().position(|c| c.name == was.name);
        let in_file = file.iter().any(|(name, _)| *name == was.name);
        assert!(!in_file || now == Some(id), "{} moved", was.name);
        let carried = (0..was.backends.len()).any(|slot| is_busy(id, slot));
        assert!(
            !carried || now == Some(id),
            "flows of {} changed hands",
            was.name
        );
        for (slot, was) in was.backends.iter().enumerate() {
            let key = |b: &Backend| (b.name.clone(), b.address);
            let backends = now.map_or(&[][..], |now| &new.clusters[now].backends);
            let now = backends.iter().position(|b| key(b) == key(was));
            let in_file = now.is_some_and(|now| !backends[now].retired);
            assert!(!in_file || now == Some(slot), "{} moved", was.name);
            let carried = is_busy(id, slot);
            assert!(
                !carried || now == Some(slot),
                "flows of {} changed hands",
                was.name
            );
        }
    }
    let living: BTreeSet<_> = new
        .clusters
        .iter()
        .filter(|cluster| !cluster.retired)
        .map(|cluster| {
            let living = cluster.backends.iter().filter(|b| !b.retired);
            let living: BTreeSet<_> = living.map(|b| (b.name.clone(), b.address)).collect();
            (cluster.name.clone(), living)
        })
        .collect();
    let wanted: BTreeSet<_> = file
        .iter()
        .map(|(name, backends)| {
            let backends = backends.iter();
            let backends = backends.map(|(name, last)| ((*name).to_owned(), address(*last)));
            ((*name).to_owned(), backends.collect::<BTreeSet<_>>())
        })
        .collect();
    assert_eq!(living, wanted);
    for (id, cluster) in new.clusters.iter().enumerate() {
        let keys: BTreeSet<_> = cluster
            .backends
            .iter()
            .map(|b| (&b.name, b.address))
            .collect();
        assert_eq!(
            keys.len(),
            cluster.backends.len(),
            "twice in {}",
            cluster.name
        );
        assert!(!cluster.retired || cluster.backends.iter().all(|b| b.retired));
        let last = cluster.backends.len().wrapping_sub(1);
        let needed = cluster
            .backends
            .last()
            .is_none_or(|b| !b.retired || is_busy(id, last));
        assert!(needed, "an idle end of {}", cluster.name);
    }
    let names: BTreeSet<_> = new.clusters.iter().map(|c| &c.name).collect();
    assert_eq!(names.len(), new.clusters.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn any_sequence_of_edits(
        steps in prop::collection::vec(
            (file(), prop::collection::btree_set((0..8_u16, 0..12_u16), 0..30), any::<bool>()),
            1..10,
        ),
    ) {
        let mut old = model(&[]);
        for (file, carried, is_known) in steps {
            let busy = |id: u16, slot: Option<u16>| slot.is_some_and(|slot| carried.contains(&(id, slot)));
            let running = is_known.then_some(&old);
            let new = align(&Ids::of(&old), running, model(&file), busy).expect("places enough");
            holds(&old, &new, &file, &carried);
            old = new;
        }
    }
}
