use std::net::Ipv4Addr;

use ocs_lb_common::access::find;
use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').expect("a length");
    Prefix::covering(
        address.parse().expect("an address"),
        len.parse().expect("a number"),
    )
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| prefix(text)).collect()
}

fn look_up(list: &[Cell<V4>], source: u32) -> Option<u32> {
    find(&V4(source.to_be_bytes()), |at| {
        list.get(at as usize).copied()
    })
}

#[test]
fn deny_wins_over_allow() {
    let allow = prefixes(&["10.0.0.0/8", "10.1.2.3/32", "192.0.2.0/24"]);
    let deny = prefixes(&["10.1.0.0/16", "192.0.2.128/25"]);
    let ranges = allowed(&allow, &deny).expect("IPv4").expect("a list");
    let list = cells(&ranges);
    for (source, wanted) in [
        ([9, 255, 255, 255], false),
        ([10, 0, 0, 0], true),
        ([10, 0, 255, 255], true),
        ([10, 1, 0, 0], false),
        // A longer allow within a deny lets nobody in.
        ([10, 1, 2, 3], false),
        ([10, 2, 0, 0], true),
        ([11, 0, 0, 0], false),
        ([192, 0, 2, 127], true),
        ([192, 0, 2, 128], false),
        ([192, 0, 3, 0], false),
    ] {
        let found = look_up(&list, u32::from_be_bytes(source));
        assert_eq!(found, Some(u32::from(wanted)), "{source:?}");
    }
    assert_eq!(allowed(&[], &[]), Ok(None));
    let all = allowed(&[], &prefixes(&["0.0.0.0/0"])).expect("IPv4");
    assert_eq!(all, Some(vec![(0, NONE)]));
    let all = allowed(&prefixes(&["0.0.0.0/0"]), &[]).expect("IPv4");
    assert_eq!(all, Some(vec![(0, ALLOWED)]));
}

#[test]
fn the_longest_prefix_chooses() {
    let (all, ten, deep) = (
        Prefix::EVERYONE,
        prefix("10.0.0.0/8"),
        prefix("10.255.255.255/32"),
    );
    let ranges = chosen([(&ten, 2), (&deep, 3), (&all, 1)].into_iter()).expect("IPv4");
    let ten = 10 << 24;
    let wanted = vec![(0, 1), (ten, 2), (ten | 0xff_ffff, 3), (11 << 24, 1)];
    assert_eq!(ranges, wanted);
}

#[test]
fn what_two_clusters_share() {
    let a = prefixes(&["10.0.0.0/8", "11.0.0.0/8"]);
    assert_eq!(shared(&a, &prefixes(&["10.1.0.0/16"])), None, "it nests");
    let same = shared(&a, &prefixes(&["9.0.0.0/8", "11.0.0.0/8"]));
    assert_eq!(same, Some(prefix("11.0.0.0/8")));
    assert_eq!(shared(&[], &a), None);
    assert_eq!(shared(&[], &[]), Some(Prefix::EVERYONE));
    assert_eq!(shared(&[], &[Prefix::EVERYONE]), Some(Prefix::EVERYONE));
}

#[test]
fn a_list_of_every_size_is_whole() {
    for count in [1_u32, 2, 3, 1000, 40_000] {
        let step = u32::MAX / count;
        let ranges: Ranges = (0..count).map(|n| (n * step, n)).collect();
        let list = cells(&ranges);
        assert!(list.len() as u32 <= 3 * count + 3, "{count}");
        for (start, value) in &ranges {
            assert_eq!(look_up(&list, *start), Some(*value), "{count}");
            let before = start.checked_sub(1).map(|at| look_up(&list, at));
            assert_eq!(before, value.checked_sub(1).map(Some), "{count}");
        }
    }
}

/// Prefixes that nest and touch: few bits vary.
fn some_prefixes() -> impl Strategy<Value = Vec<Prefix>> {
    let one = (0_u32..64, 0_u32..64, 0_u8..=32).prop_map(|(high, low, len)| {
        let address = Ipv4Addr::from_bits(high << 26 | low);
        Prefix::covering(address.into(), len)
    });
    prop::collection::vec(one, 0..30)
}

fn some_source() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (0_u32..64, 0_u32..64).prop_map(|(high, low)| high << 26 | low),
        (0_u32..64).prop_map(|high| (high << 26).wrapping_sub(1)),
    ]
}

proptest! {
    #[test]
    fn a_list_says_what_its_prefixes_say(
        allow in some_prefixes(),
        deny in some_prefixes(),
        sources in prop::collection::vec(some_source(), 50),
    ) {
        let Some(ranges) = allowed(&allow, &deny).expect("IPv4") else {
            return Ok(());
        };
        for pair in ranges.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1);
        }
        let list = cells(&ranges);
        for source in sources {
            let wanted = lets_in(&allow, &deny, Ipv4Addr::from_bits(source).into());
            prop_assert_eq!(look_up(&list, source), Some(u32::from(wanted)));
        }
    }

    #[test]
    fn a_route_is_the_longest_prefix(
        prefixes in some_prefixes(),
        sources in prop::collection::vec(some_source(), 50),
    ) {
        let mut unique = prefixes.clone();
        unique.sort_unstable();
        unique.dedup();
        let values = || unique.iter().zip(1_u32..);
        let list = cells(&chosen(values()).expect("IPv4"));
        for source in sources {
            let address = Ipv4Addr::from_bits(source).into();
            let longest = values()
                .filter(|(prefix, _)| prefix.covers(address))
                .max_by_key(|(prefix, _)| prefix.len);
            let wanted = longest.map_or(NONE, |(_, value)| value);
            prop_assert_eq!(look_up(&list, source), Some(wanted));
        }
    }
}
