//! What is printed, for people and for machines.

use super::*;
use crate::admin::server::tests::{Memory, Running};
use crate::admin::{Filter, Request};

/// What `show` prints of a controller with `flows` flows.
async fn printed(show: Show, json: bool, flows: u16) -> String {
    let server = Running::start(Memory { flows, gone: false }).await;
    let command = ShowCommand {
        socket: server.path.clone(),
        request: Request::new(show, Filter::default()).unwrap(),
        json,
    };
    let text = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        print(&command, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    });
    let text = text.await.unwrap();
    server.stop().await;
    text
}

#[tokio::test]
async fn tables_are_for_people() {
    let cases: [(Show, &str); 7] = [
        (
            Show::Backends,
            "CLUSTER CLUSTER STATE BACKEND   ADDRESS       STATE READY ROLE   WEIGHT LIVE PENDING TOTAL IN OUT SAID LAST CHECK\n\
             ocs     ready         OCS_Node1 198.51.100.10 up    yes   active      0    0       0     0  0   0\n\
             lync    ready         OCS_Node1 198.51.100.10 up    yes   active      0    0       0     0  0   0\n",
        ),
        (
            Show::Status,
            "INTERFACE MODE   REASON\n\
             eth0      native as configured\n",
        ),
        (
            Show::Flows,
            "CLUSTER CLIENT        VIP           SNAT           BACKEND   TO                STATE       IDLE IN  OUT\n\
             ocs     203.0.113.5:0 192.0.2.1:443 198.51.100.1:0 OCS_Node1 198.51.100.10:443 established 1.5s  1 2.0K\n",
        ),
        (
            Show::Sticky,
            "CLUSTER CLIENT      BACKEND   EXPIRES\n\
             ocs     203.0.113.5 OCS_Node1  29m59s\n\
             lync    203.0.113.5 OCS_Node1  29m59s\n",
        ),
        (
            Show::Drops,
            "INTERFACE VERDICT REASON PACKETS\n\
             eth0      drop    limit        4\n",
        ),
        (
            Show::Snat,
            "CLUSTER ADDRESS      BACKEND   PORT USED RESTING LIMIT USED %\n\
             ocs     198.51.100.1 OCS_Node1  443    5       2  1000    0.5\n\
             lync    198.51.100.1 OCS_Node1  443    5       2  1000    0.5\n",
        ),
        (
            Show::Events,
            "TIME                     EVENT      REASON CLUSTER CLIENT            VIP           BACKEND                AGE IN OUT\n\
             2023-11-14T22:13:20.250Z redispatch silent ocs     203.0.113.5:50000 192.0.2.1:443 OCS_Node1 -> OCS_Node2\n\
             2023-11-14T22:13:20.250Z redispatch silent lync    203.0.113.5:50000 192.0.2.1:443 OCS_Node1 -> OCS_Node2\n",
        ),
    ];
    for (show, expected) in cases {
        let text = printed(show, false, 1).await;
        assert_eq!(text, expected, "show {show}:\n{text}");
    }
}

#[test]
fn events_without_a_flow() {
    let needed = EventView {
        kind: "neighbor_needed".into(),
        neighbor: Some([203, 0, 113, 9].into()),
        ifindex: Some(7),
        ..EventView::default()
    };
    assert_eq!(
        cells(&needed)[4..],
        ["203.0.113.9 dev 7", "", "", "", "", ""]
    );
    let closed = EventView {
        kind: "close".into(),
        age: 90.0,
        bytes_in: 2048,
        ..EventView::default()
    };
    assert_eq!(cells(&closed)[7..], ["1m30s", "2.0K", "0"]);
}

#[tokio::test]
async fn json_is_one_value() {
    for show in Show::ALL {
        for flows in [0, 1, 3] {
            let text = printed(show, true, flows).await;
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            match show {
                Show::Flows => assert_eq!(value.as_array().unwrap().len(), usize::from(flows)),
                Show::Sticky => assert_eq!(value.as_array().unwrap().len(), 2),
                _ => assert!(value.is_object(), "{text}"),
            }
        }
    }
}
