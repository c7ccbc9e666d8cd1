//! OPTIONS and what may answer it.

use super::*;

fn request() -> Request<'static> {
    Request {
        local: "198.51.100.1:20000".parse().unwrap(),
        server: "198.51.100.10:5061".parse().unwrap(),
        tls: true,
        from: None,
        to: None,
        token: 0x0123_4567_89ab_cdef,
    }
}

/// An answer to [`request`].
fn answer(status: &str, more: &str) -> String {
    let call = request().call_id();
    format!("SIP/2.0 {status}\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\n{more}\r\n")
}

fn status(received: &str) -> Result<Option<u16>, String> {
    let answered = request().answer(received.as_bytes())?;
    Ok(answered.map(|response| response.status))
}

#[test]
fn the_request_as_it_is_sent() {
    let wanted = "OPTIONS sip:198.51.100.10:5061 SIP/2.0\r\n\
        Via: SIP/2.0/TLS 198.51.100.1:20000;branch=z9hG4bK0123456789abcdef\r\n\
        Max-Forwards: 70\r\n\
        From: <sip:ocs-lb@198.51.100.1>;tag=01234567\r\n\
        To: <sip:198.51.100.10:5061>\r\n\
        Call-ID: 0123456789abcdef@198.51.100.1\r\n\
        CSeq: 1 OPTIONS\r\n\
        Contact: <sip:ocs-lb@198.51.100.1:20000;transport=tls>\r\n\
        Accept: application/sdp\r\n\
        User-Agent: ocs-lb\r\n\
        Content-Length: 0\r\n\r\n";
    assert_eq!(request().text(), wanted);
    let named = Request {
        tls: false,
        from: Some("sip:probe@example.com"),
        to: Some("sip:pool.example.com"),
        ..request()
    };
    let text = named.text();
    for part in [
        "OPTIONS sip:pool.example.com SIP/2.0\r\nVia: SIP/2.0/TCP ",
        "From: <sip:probe@example.com>;tag=",
        "To: <sip:pool.example.com>\r\n",
        ";transport=tcp>\r\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn final_answers() {
    assert_eq!(status(&answer("200 OK", "")), Ok(Some(200)));
    assert_eq!(status(&answer("405 Method Not Allowed", "")), Ok(Some(405)));
    assert_eq!(status(&answer("503", "")), Ok(Some(503)), "no reason");
    let short = answer("200 OK", "")
        .replace("Call-ID", "i")
        .replace("CSeq", "CSEQ ");
    assert_eq!(status(&short), Ok(Some(200)), "short forms and spaces");
    let trying = format!("\r\n{}{}", answer("100 Trying", "l: 2\r\n"), "ab");
    assert_eq!(status(&trying), Ok(None), "only a provisional one");
    let both = format!("{trying}{}", answer("404 Not Found", ""));
    assert_eq!(status(&both), Ok(Some(404)), "after a provisional one");
}

#[test]
fn every_beginning_of_an_answer_waits_for_more() {
    let whole = format!("{}{}", answer("180 Ringing", ""), answer("200 OK", ""));
    for end in 0..whole.len() {
        assert_eq!(status(&whole[..end]), Ok(None), "{end}");
    }
    assert_eq!(status(&whole), Ok(Some(200)));
}

#[test]
fn what_is_no_answer() {
    for (case, received, part) in [
        (
            "HTTP",
            "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
            "not SIP: HTTP/1.1 400",
        ),
        ("a greeting", "220 mail".to_owned(), "not SIP: 220 mail"),
        ("controls", "\u{16}\u{3}".to_owned(), "not SIP: ??"),
        ("no number", answer("OK", ""), "no status"),
        ("too large a number", answer("700 No", ""), "no status"),
        ("two digits", answer("20 OK", ""), "no status"),
        (
            "another call",
            answer("200 OK", "").replace("0123456789abcdef@", "other@"),
            "an answer to the call other@",
        ),
        (
            "another request",
            answer("200 OK", "").replace("1 OPTIONS", "2 INVITE"),
            "an answer to the request 2 INVITE",
        ),
        (
            "no length",
            answer("200 OK", "Content-Length: x\r\n"),
            "the length x",
        ),
        (
            "a provisional answer without end",
            answer("100 Trying", "Content-Length: 99999999\r\n"),
            "a provisional answer of 99999999 bytes",
        ),
        (
            "a head without end",
            format!("SIP/2.0 200 OK\r\n{}", "A: b\r\n".repeat(LONGEST / 6 + 1)),
            "the answer's head is longer",
        ),
    ] {
        let met = status(&received).expect_err(case);
        assert!(met.contains(part), "{case}: {met}");
    }
}

proptest::proptest! {
    /// Whatever a server sends is an answer, an error or the begin of either.
    #[test]
    fn no_bytes_break_it(received in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = request().answer(&received);
        let mut after = b"SIP/2.0 ".to_vec();
        after.extend(&received);
        if let Ok(Some(response)) = request().answer(&after) {
            proptest::prop_assert!((200..700).contains(&response.status));
            proptest::prop_assert!(!response.reason.contains(char::is_control));
        }
    }
}
