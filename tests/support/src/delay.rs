//! A long wire: two links of a namespace joined with a delay, for kernels
//! without netem.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::flood::{packet_socket, receive, send};
use crate::netns::Namespace;

/// Carries every frame from one link to the other and back after `delay`,
/// until the process ends.
///
/// # Errors
/// Where a socket cannot be opened.
pub fn join(namespace: &Namespace, links: [&str; 2], delay: Duration) -> anyhow::Result<()> {
    for [from, to] in [links, [links[1], links[0]]] {
        let (input, output) = namespace.run(|| {
            std::io::Result::Ok((packet_socket(from, true)?, packet_socket(to, false)?))
        })??;
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
            let mut buffer = vec![0; 2048];
            loop {
                let wait = queue.front().map_or(Duration::from_millis(50), |(due, _)| {
                    due.saturating_duration_since(Instant::now())
                });
                if let Some(len) = receive(&input, &mut buffer, wait)? {
                    queue.push_back((Instant::now() + delay, buffer[..len].to_vec()));
                }
                while queue.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                    if let Some((_, frame)) = queue.pop_front() {
                        send(&output, &frame);
                    }
                }
            }
        });
    }
    Ok(())
}
