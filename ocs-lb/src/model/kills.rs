//! Which flows are to be reset, and at what pace: pure.
//!
//! A job is one wish, such as "all flows of that backend". One walk over the
//! flow table serves one job; jobs take turns, and a job that waited may end
//! as many more flows.

use std::collections::VecDeque;

use ocs_lb_common::abi::{ANY, KillReason, KillReport, KillRequest};

/// Walks in a second, at most.
pub const WALKS_PER_SECOND: u32 = 10;

/// Walks in a row that may fail before their job is given up.
const TRIES: u32 = 10;

/// A wish under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number, never used again.
    pub id: u64,
    /// What is to end; `limit` is not used.
    pub request: KillRequest,
    /// Flows a second.
    pub rate: u32,
    /// Flows ended so far.
    pub killed: u64,
    /// Flows whose record was lost so far.
    pub untold: u64,
    /// Flows that the guard kept in the last walk.
    pub kept: u32,
    /// Flows that it may end now, in tenths.
    allowance: u64,
    /// Walks in a row that did not run.
    failures: u32,
}

impl Job {
    fn is_down(&self, cluster: u16, backend: u16) -> bool {
        self.request.reason == KillReason::BackendDown as u8
            && (self.request.cluster, self.request.backend) == (cluster, backend)
    }
}

/// Jobs in the order of their turns.
#[derive(Debug, Default)]
pub struct Queue {
    jobs: VecDeque<Job>,
    next: u64,
}

impl Queue {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Adds a job of `rate` flows a second (at least one); its number. A job
    /// for a backend that is down replaces an earlier one for it.
    pub fn push(&mut self, request: KillRequest, rate: u32) -> u64 {
        if request.reason == KillReason::BackendDown as u8 {
            self.drop_down(request.cluster, request.backend);
        }
        let id = self.next;
        self.next += 1;
        self.jobs.push_back(Job {
            id,
            request,
            rate: rate.max(1),
            killed: 0,
            untold: 0,
            kept: 0,
            allowance: 0,
            failures: 0,
        });
        id
    }

    /// Forgets the job for a backend that was down and is up again; the job.
    pub fn drop_down(&mut self, cluster: u16, backend: u16) -> Option<Job> {
        let at = self
            .jobs
            .iter()
            .position(|job| job.is_down(cluster, backend))?;
        self.jobs.remove(at)
    }

    /// What the walk of this tenth of a second is to do; `None` where no job
    /// may end a flow yet. Every call is one tenth of a second.
    pub fn step(&mut self) -> Option<(u64, KillRequest)> {
        let tenth = u64::from(WALKS_PER_SECOND);
        for job in &mut self.jobs {
            // A second's worth at most: a table that takes long to walk must
            // not turn the pace into a burst.
            let most = tenth * u64::from(job.rate).max(1);
            job.allowance = (job.allowance + u64::from(job.rate)).min(most);
        }
        let at = self.jobs.iter().position(|job| job.allowance >= tenth)?;
        // Its turn is over; the others come first now.
        let mut job = self.jobs.remove(at)?;
        let limit = u32::try_from(job.allowance / tenth).unwrap_or(u32::MAX);
        job.allowance %= tenth;
        let request = KillRequest {
            limit,
            ..job.request
        };
        let id = job.id;
        self.jobs.push_back(job);
        Some((id, request))
    }

    /// Takes the report of a walk; the job, if that was its last.
    pub fn walked(&mut self, id: u64, report: &KillReport) -> Option<Job> {
        let at = self.jobs.iter().position(|job| job.id == id)?;
        let job = self.jobs.get_mut(at)?;
        job.failures = 0;
        job.killed += u64::from(report.killed);
        job.untold += u64::from(report.untold);
        job.kept = report.kept;
        if report.more != 0 {
            return None;
        }
        self.jobs.remove(at)
    }

    /// Takes note of a walk that did not run: it is tried again, a few times;
    /// the job, if that was its last.
    pub fn failed(&mut self, id: u64) -> Option<Job> {
        let at = self.jobs.iter().position(|job| job.id == id)?;
        let job = self.jobs.get_mut(at)?;
        job.failures += 1;
        if job.failures < TRIES {
            return None;
        }
        self.jobs.remove(at)
    }
}

/// The request for all flows of a backend.
pub fn of_backend(cluster: u16, backend: u16, reason: KillReason) -> KillRequest {
    KillRequest {
        cluster,
        backend,
        reason: reason as u8,
        ..KillRequest::default()
    }
}

/// The request for all flows of a client, in all clusters.
pub fn of_client(client: [u8; 16]) -> KillRequest {
    KillRequest {
        client,
        cluster: ANY,
        backend: ANY,
        reason: KillReason::Operator as u8,
        ..KillRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(backend: u16) -> KillRequest {
        of_backend(0, backend, KillReason::BackendDown)
    }

    /// Walks until the queue is empty, with `flows` of each backend; killed by
    /// backend in each walk.
    fn drain(queue: &mut Queue, flows: &mut [u32]) -> Vec<(u16, u32)> {
        let mut walks = Vec::new();
        while !queue.is_empty() {
            assert!(walks.len() < 1000, "never ends");
            let Some((id, request)) = queue.step() else {
                walks.push((ANY, 0));
                continue;
            };
            let left = &mut flows[usize::from(request.backend)];
            let killed = request.limit.min(*left);
            *left -= killed;
            let report = KillReport {
                killed,
                more: u32::from(*left > 0),
                ..KillReport::default()
            };
            queue.walked(id, &report);
            walks.push((request.backend, killed));
        }
        walks
    }

    #[test]
    fn a_tenth_of_the_rate_each_time() {
        let mut queue = Queue::default();
        queue.push(down(0), 5000);
        let walks = drain(&mut queue, &mut [1200]);
        assert_eq!(walks, [(0, 500), (0, 500), (0, 200)]);
    }

    #[test]
    fn a_rate_below_ten_waits() {
        let mut queue = Queue::default();
        queue.push(down(0), 3);
        let walks = drain(&mut queue, &mut [3]);
        let wait = (ANY, 0);
        let want = [
            wait,
            wait,
            wait,
            (0, 1),
            wait,
            wait,
            (0, 1),
            wait,
            wait,
            (0, 1),
        ];
        assert_eq!(walks, want);
    }

    #[test]
    fn jobs_take_turns_and_keep_their_rates() {
        let mut queue = Queue::default();
        queue.push(down(0), 100);
        queue.push(down(1), 1000);
        let walks = drain(&mut queue, &mut [30, 300]);
        let want = [(0, 10), (1, 200), (0, 20), (1, 100)];
        assert_eq!(walks, want);
    }

    #[test]
    fn what_waits_long_ends_a_seconds_worth() {
        let mut queue = Queue::default();
        for backend in 0..30 {
            queue.push(down(backend), 100);
        }
        let limits: Vec<u32> = (0..30)
            .filter_map(|_| queue.step())
            .map(|(_, request)| request.limit)
            .collect();
        assert_eq!(limits.len(), 30);
        assert_eq!((limits[0], limits[9], limits[29]), (10, 100, 100));
    }

    #[test]
    fn sums_and_ends() {
        let mut queue = Queue::default();
        let id = queue.push(of_client([9; 16]), 50);
        let (walked, request) = queue.step().expect("a walk");
        assert_eq!((walked, request.limit), (id, 5));
        assert_eq!((request.cluster, request.backend), (ANY, ANY));
        let report = KillReport {
            killed: 5,
            kept: 2,
            more: 1,
            untold: 1,
        };
        assert_eq!(queue.walked(id, &report), None);
        let last = KillReport { more: 0, ..report };
        let job = queue.walked(id, &last).expect("done");
        // Every walk meets the flows again that the guard keeps.
        assert_eq!((job.killed, job.untold, job.kept), (10, 2, 2));
        assert!(queue.is_empty());
        assert_eq!(queue.walked(id, &last), None);
    }

    #[test]
    fn a_walk_that_fails_is_tried_again() {
        let mut queue = Queue::default();
        let id = queue.push(down(0), 10);
        let more = KillReport {
            more: 1,
            ..KillReport::default()
        };
        for _ in 0..3 {
            for _ in 1..TRIES {
                assert_eq!(queue.failed(id), None);
            }
            // One that runs forgives the others.
            assert_eq!(queue.walked(id, &more), None);
        }
        for _ in 1..TRIES {
            assert_eq!(queue.failed(id), None);
        }
        assert!(queue.failed(id).is_some_and(|job| job.id == id));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_backend_that_is_back_is_left_alone() {
        let mut queue = Queue::default();
        queue.push(down(1), 10);
        let operator = queue.push(of_backend(0, 1, KillReason::Operator), 10);
        assert!(queue.drop_down(0, 2).is_none());
        assert!(queue.drop_down(0, 1).is_some());
        assert_eq!(queue.step().map(|(id, _)| id), Some(operator));
        // Down twice is one job.
        queue.push(down(3), 10);
        queue.push(down(3), 20);
        assert!(queue.drop_down(0, 3).is_some_and(|job| job.rate == 20));
        assert!(queue.drop_down(0, 3).is_none());
    }
}
