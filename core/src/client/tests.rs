//! Tests of the client's own parts; whole calls are tested against a server of the same codec below.

use super::*;

#[test]
fn addresses() {
    assert_eq!(authority("127.0.0.1:8980").as_deref(), Ok("127.0.0.1:8980"));
    assert_eq!(authority("http://localhost:1/").as_deref(), Ok("localhost:1"));
    assert_eq!(authority("[::1]:80").as_deref(), Ok("[::1]:80"));
    for bad in ["", "localhost", ":1", "a:b", "https://a:1", "a:99999"] {
        assert!(authority(bad).is_err(), "{bad}");
    }
}

#[test]
fn messages_are_percent_decoded() {
    assert_eq!(percent_decode(b"a%20b%C3%A4"), "a bä");
    assert_eq!(percent_decode(b"100%, %4, %zz%"), "100%, %4, %zz%");
    assert_eq!(percent_decode(b"%FF"), "\u{FFFD}");
}

#[test]
fn nobody_listening_is_said_with_the_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = format!("127.0.0.1:{port}");
    let error = Client::connect(&server, Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot reach a gateway at {server}: ")),
        "{error}"
    );
}
