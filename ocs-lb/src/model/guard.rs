//! Whether a failure is a backend's death or our own link's: pure.
//!
//! Times are durations since one fixed point.

use std::net::IpAddr;
use std::time::Duration;

/// What a backend's checks have told so far. All times are starts of checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checks {
    /// First of the present run of failures; `None` while the last one was good.
    pub failing_since: Option<Duration>,
    /// Last failure.
    pub last_failed: Option<Duration>,
    /// First of the present run of successes; `None` while the last one failed.
    pub ok_since: Option<Duration>,
    /// Last success.
    pub last_ok: Option<Duration>,
}

impl Checks {
    /// Takes the result of a check that started then.
    pub fn observe(&mut self, ok: bool, started: Duration) {
        if ok {
            self.failing_since = None;
            self.ok_since = self.ok_since.or(Some(started));
            self.last_ok = Some(started);
        } else {
            self.ok_since = None;
            self.failing_since = self.failing_since.or(Some(started));
            self.last_failed = Some(started);
        }
    }
}

/// A backend that is checked, of any cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Id of its cluster.
    pub cluster: u16,
    /// Its slot there.
    pub slot: u16,
    /// Whether it is no backup.
    pub primary: bool,
    /// Address and port that are checked: the same twice is one witness.
    pub server: (IpAddr, u16),
    /// Interface towards it.
    pub ifindex: u32,
    /// Index of its next hop.
    pub next_hop: u16,
    /// From one check's start to the end of the next, at most.
    pub cycle: Duration,
    /// What its checks told.
    pub checks: Checks,
}

/// What becomes of the flows of a backend that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is dead, and our link is not.
    Reset,
    /// Nothing is reset, for now.
    Keep(Why),
}

/// Why flows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Others have not been checked since.
    Waiting,
    /// All others that count fail too.
    Together,
    /// There is no other whose checks could tell.
    Alone,
}

impl Why {
    /// For the log.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Waiting => "no other backend was checked since",
            Self::Together => "all backends beside it fail as well, so it may be our own link",
            Self::Alone => "no other backend can tell whether it is our own link",
        }
    }
}

/// What another backend says about the failure of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Witness {
    /// It serves, and the dead one has failed again since.
    Alive,
    /// It began to fail at about the same time.
    Falls,
    /// It has not been checked since.
    Silent,
    /// It failed long before.
    Stale,
}

fn witness(dead: &Member, other: &Member) -> Witness {
    let Some(since) = dead.checks.failing_since else {
        return Witness::Silent;
    };
    if let Some(began) = other.checks.failing_since {
        let together = began + dead.cycle.max(other.cycle) >= since;
        return if together {
            Witness::Falls
        } else {
            Witness::Stale
        };
    }
    let seen_since = other.checks.last_ok.is_some_and(|ok| ok >= since);
    // A link that comes back shows on some backend first: the dead one must
    // have had its chance after that.
    let has_failed_again = other.checks.ok_since < dead.checks.last_failed;
    if seen_since && has_failed_again {
        Witness::Alive
    } else {
        Witness::Silent
    }
}

/// Decides about `dead`, whose last check failed, by what all checks have told.
///
/// Nothing is reset while all primaries of its cluster, all backends behind its
/// interface or all behind its next hop fail together: groups of at least two,
/// counting those whose failure began within one check's time of each other.
/// Where no group has a witness that serves, nothing is reset either.
pub fn decide<'m>(dead: &Member, all: impl Iterator<Item = &'m Member> + Clone) -> Verdict {
    let others = all.filter(|other| other.server != dead.server);
    let groups: [fn(&Member, &Member) -> bool; 3] = [
        |dead, other| dead.primary && other.primary && other.cluster == dead.cluster,
        |dead, other| other.ifindex == dead.ifindex,
        |dead, other| (other.ifindex, other.next_hop) == (dead.ifindex, dead.next_hop),
    ];
    let (mut alive, mut why) = (false, None);
    for belongs in groups {
        let said: Vec<Witness> = others
            .clone()
            .filter(|other| belongs(dead, other))
            .map(|other| witness(dead, other))
            .collect();
        if said.contains(&Witness::Alive) {
            alive = true;
        } else if said.contains(&Witness::Silent) {
            why = why.or(Some(Why::Waiting));
        } else if said.contains(&Witness::Falls) {
            why = Some(Why::Together);
        }
    }
    match why {
        Some(why) => Verdict::Keep(why),
        None if alive => Verdict::Reset,
        None => Verdict::Keep(Why::Alone),
    }
}

/// When every other backend that counts has been checked since `dead` failed
/// first: later than that, who keeps its flows says so.
pub fn told_by<'m>(dead: &Member, all: impl Iterator<Item = &'m Member>) -> Duration {
    let slowest = all
        .filter(|other| other.cluster == dead.cluster || other.ifindex == dead.ifindex)
        .map(|other| other.cycle)
        .max();
    let since = dead.checks.failing_since.unwrap_or_default();
    since + slowest.unwrap_or_default().max(dead.cycle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A backend of cluster 0 behind interface 2, directly reached; checked
    /// every second with as long a timeout.
    fn member(slot: u16) -> Member {
        Member {
            cluster: 0,
            slot,
            primary: true,
            server: (IpAddr::from([198, 51, 100, slot as u8]), 5061),
            ifindex: 2,
            next_hop: slot,
            cycle: ms(2000),
            checks: Checks::default(),
        }
    }

    fn checked(mut member: Member, results: &[(u64, bool)]) -> Member {
        for (at, ok) in results {
            member.checks.observe(*ok, ms(*at));
        }
        member
    }

    fn verdict(members: &[Member]) -> Verdict {
        decide(&members[0], members.iter())
    }

    const OK: bool = true;
    const KO: bool = false;
    const DEAD: [(u64, bool); 4] = [(8000, OK), (10_000, KO), (12_000, KO), (14_000, KO)];

    #[test]
    fn runs_of_results() {
        let checks = checked(member(0), &DEAD).checks;
        assert_eq!(checks.failing_since, Some(ms(10_000)));
        assert_eq!(checks.last_failed, Some(ms(14_000)));
        assert_eq!((checks.ok_since, checks.last_ok), (None, Some(ms(8000))));
        let back = checked(member(0), &[(1, KO), (2, OK), (3, OK)]).checks;
        assert_eq!((back.failing_since, back.ok_since), (None, Some(ms(2))));
        assert_eq!((back.last_failed, back.last_ok), (Some(ms(1)), Some(ms(3))));
    }

    #[test]
    fn another_primary_that_serves_settles_it_at_once() {
        let a = checked(member(0), &DEAD);
        let b = checked(member(1), &[(9000, OK), (11_000, OK)]);
        assert_eq!(verdict(&[a.clone(), b]), Verdict::Reset);
        // One that was not checked since says nothing yet.
        let b = checked(member(1), &[(9000, OK)]);
        assert_eq!(verdict(&[a, b]), Verdict::Keep(Why::Waiting));
    }

    #[test]
    fn all_primaries_together_are_kept() {
        let a = checked(member(0), &DEAD);
        for began in [8000, 9000, 11_000, 13_900] {
            let b = checked(member(1), &[(7000, OK), (began, KO)]);
            assert_eq!(
                verdict(&[a.clone(), b]),
                Verdict::Keep(Why::Together),
                "{began}"
            );
        }
        // Behind another interface as well, and whatever serves beside it.
        let mut b = checked(member(1), &[(11_000, KO)]);
        b.ifindex = 3;
        let mut backup = checked(member(2), &[(9000, OK), (13_000, OK)]);
        backup.primary = false;
        assert_eq!(verdict(&[a, b, backup]), Verdict::Keep(Why::Together));
    }

    #[test]
    fn one_that_was_dead_before_does_not_count() {
        let a = checked(member(0), &DEAD);
        let old = checked(member(1), &[(1000, KO), (3000, KO), (13_000, KO)]);
        let b = checked(member(2), &[(11_000, OK)]);
        let all = [a.clone(), old.clone(), b];
        assert_eq!(verdict(&all), Verdict::Reset);
        assert_eq!(verdict(&[a, old]), Verdict::Keep(Why::Alone));
    }

    #[test]
    fn a_link_that_comes_back_gives_everyone_a_chance() {
        let mut a = checked(member(0), &DEAD);
        let b = checked(
            member(1),
            &[(9000, OK), (11_000, KO), (13_000, KO), (15_000, OK)],
        );
        assert_eq!(
            verdict(&[a.clone(), b.clone()]),
            Verdict::Keep(Why::Waiting)
        );
        // Its own check after that fails too: it is dead, the link is not.
        a.checks.observe(KO, ms(16_000));
        assert_eq!(verdict(&[a, b]), Verdict::Reset);
    }

    #[test]
    fn interface_and_next_hop() {
        let a = checked(member(0), &DEAD);
        let mut near = checked(member(1), &[(10_500, KO)]);
        near.cluster = 1;
        let mut far = checked(member(2), &[(11_000, OK)]);
        far.ifindex = 3;
        // All behind one interface, whatever serves behind another.
        assert_eq!(
            verdict(&[a.clone(), near.clone(), far.clone()]),
            Verdict::Keep(Why::Together)
        );
        // All behind one gateway, whatever serves beside it.
        near.next_hop = a.next_hop;
        far.ifindex = a.ifindex;
        assert_eq!(verdict(&[a, near, far]), Verdict::Keep(Why::Together));
    }

    #[test]
    fn a_single_primary_goes_by_who_shares_its_link() {
        let a = checked(member(0), &DEAD);
        assert_eq!(verdict(std::slice::from_ref(&a)), Verdict::Keep(Why::Alone));
        let mut backup = checked(member(1), &[(11_000, OK)]);
        backup.primary = false;
        assert_eq!(verdict(&[a.clone(), backup.clone()]), Verdict::Reset);
        // Behind another interface it proves nothing.
        backup.ifindex = 3;
        assert_eq!(verdict(&[a, backup]), Verdict::Keep(Why::Alone));
    }

    #[test]
    fn a_server_is_no_witness_of_itself() {
        let a = checked(member(0), &DEAD);
        let mut again = checked(member(1), &[(10_500, KO)]);
        again.server = a.server;
        let b = checked(member(2), &[(11_000, OK)]);
        assert_eq!(verdict(&[a, again, b]), Verdict::Reset);
    }

    #[test]
    fn the_slowest_is_waited_for() {
        let a = checked(member(0), &DEAD);
        let mut slow = member(1);
        slow.cycle = ms(30_000);
        let mut elsewhere = member(2);
        (elsewhere.cluster, elsewhere.ifindex) = (1, 9);
        elsewhere.cycle = ms(90_000);
        assert_eq!(told_by(&a, [&slow, &elsewhere].into_iter()), ms(40_000));
        assert_eq!(told_by(&a, [].into_iter()), ms(12_000));
    }
}
