//! HTTP/1.1 as sent by clients of standard libraries.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use crate::support::Setup;

#[test]
fn a_request_that_ends_its_connection_is_answered_though_its_body_comes_later() {
    // Python's urllib sends `connection: close`, and head and body in two packets.
    let gateway = Setup::new().args(&["--embedded", "memory"]).start();
    let body = r#"{"name":"none"}"#;
    let length = body.len();
    let head = format!(
        "POST /prism.admin.v1.Namespaces/Get HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut stream = gateway.connect();
    stream.write_all(head.as_bytes()).expect("a head");
    // No event shows that the gateway has read the head alone; after this time it has.
    std::thread::sleep(Duration::from_millis(100));
    stream.write_all(body.as_bytes()).expect("a body");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
