//! Tests of the client's own parts; whole calls are tested against a server of the same codec
//! below.

use super::address::HTTP;
use super::*;

#[test]
fn addresses() {
    for (text, scheme, authority, host) in [
        ("127.0.0.1:8980", HTTP, "127.0.0.1:8980", "127.0.0.1"),
        ("http://localhost:1/", HTTP, "localhost:1", "localhost"),
        ("https://a.example:1", HTTPS, "a.example:1", "a.example"),
        ("[::1]:80", HTTP, "[::1]:80", "[::1]"),
    ] {
        let address = Address::parse(text).expect(text);
        assert_eq!(
            (address.scheme, &*address.authority),
            (scheme, authority),
            "{text}"
        );
        assert_eq!(address.host(), host, "{text}");
    }
    for bad in ["", "localhost", ":1", "a:b", "https://a", "ftp://a:1", "a:99999"] {
        assert!(Address::parse(bad).is_err(), "{bad}");
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

mod against_a_server {
    use std::net::{TcpListener, TcpStream};
    use std::thread::JoinHandle;

    use prism_codec::proto::google::rpc::ErrorInfo;
    use prism_codec::proto::prism::admin::v1 as admin;

    use super::*;

    /// Serves one connection: `answer` gets the path of each complete request.
    fn serve(answer: impl Fn(&mut Connection, StreamId, &str) + Send + 'static) -> (String, JoinHandle<()>) {
        serve_raw(move |mut socket| {
            let mut connection = Connection::new(Config::server());
            let mut received = Vec::new();
            let mut paths: Vec<(StreamId, String)> = Vec::new();
            loop {
                let output = connection.take_output(Vec::new());
                if socket.write_all(&output).is_err() {
                    return;
                }
                let start = received.len();
                received.resize(start + RECEIVE_BYTES, 0);
                let Ok(count @ 1..) = socket.read(&mut received[start..]) else {
                    return;
                };
                received.truncate(start + count);
                let mut input = Input::new(&received);
                while let Some(event) = connection
                    .poll_event(&mut input)
                    .expect("our client keeps the rules")
                {
                    match event {
                        Event::Headers { stream, headers, .. } => {
                            assert_eq!(headers.get(b"content-type"), Some(&b"application/grpc"[..]));
                            let path = headers.get(b":path").unwrap_or_default();
                            let streams = [&b"/five"[..], b"/none"].contains(&path);
                            assert_eq!(
                                headers.get(b"grpc-timeout").is_none(),
                                streams,
                                "a stream has no end in time"
                            );
                            paths.push((stream, String::from_utf8_lossy(path).into_owned()));
                        }
                        Event::Data {
                            stream,
                            end_stream: true,
                            ..
                        } => {
                            let path = paths
                                .iter()
                                .find(|(known, _)| *known == stream)
                                .expect("headers come first");
                            let path = path.1.clone();
                            answer(&mut connection, stream, &path);
                        }
                        _ => {}
                    }
                }
                let consumed = input.consumed();
                received.drain(..consumed);
            }
        })
    }

    fn serve_raw(work: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || work(listener.accept().unwrap().0));
        (server, thread)
    }

    fn namespace(name: &str) -> admin::GetResponse {
        admin::GetResponse {
            namespace: Some(admin::Namespace {
                name: name.into(),
                ..admin::Namespace::default()
            }),
        }
    }

    fn get(client: &mut Client, path: &str) -> Result<admin::GetResponse, ClientError> {
        client.unary(path, &admin::GetRequest { name: "a".into() })
    }

    #[test]
    fn replies_statuses_and_large_messages_on_one_connection() {
        let large = "x".repeat(3 << 20);
        let reply = namespace(&large);
        let (server, thread) = serve(move |connection, stream, path| {
            let outcome = match path {
                "/large" => connection.send_grpc_reply(stream, |out| reply.encode(out).unwrap()),
                "/refused" => {
                    let info = ErrorInfo {
                        reason: "WHY".into(),
                        domain: "prism".into(),
                        metadata: Default::default(),
                    };
                    let any = prost_types::Any {
                        type_url: "t/google.rpc.ErrorInfo".into(),
                        value: info.encode_to_vec(),
                    };
                    let status = Status {
                        code: 5,
                        message: "nö such".into(),
                        details: vec![any],
                    };
                    connection.send_grpc_error(stream, 5, "nö such", Some(&status.encode_to_vec()))
                }
                "/plain" => connection.send_grpc_error(stream, 8, "100% full", None),
                "/http" => connection.send_headers(stream, &[(b":status", b"404")], true),
                _ => connection.send_grpc_reply(stream, |out| namespace("small").encode(out).unwrap()),
            };
            outcome.expect("the stream is open");
        });
        let mut client = Client::connect(&server, Duration::from_secs(20)).unwrap();
        assert_eq!(get(&mut client, "/small").unwrap(), namespace("small"));
        let Err(ClientError::Status(status)) = get(&mut client, "/refused") else {
            panic!("must be refused")
        };
        assert_eq!(
            (status.code, &*status.message, status.details.len()),
            (5, "nö such", 1)
        );
        let Err(ClientError::Status(status)) = get(&mut client, "/plain") else {
            panic!("must be refused")
        };
        assert_eq!((status.code, &*status.message), (8, "100% full"));
        let Err(ClientError::Status(status)) = get(&mut client, "/http") else {
            panic!("must be refused")
        };
        assert_eq!(status.code, 12);
        let large = get(&mut client, "/large").unwrap();
        assert_eq!(
            large.namespace.map(|namespace| namespace.name.len()),
            Some(3 << 20)
        );
        assert_eq!(get(&mut client, "/small").unwrap(), namespace("small"));
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn streams_are_read_message_by_message_and_can_be_cancelled() {
        let (server, thread) = serve(|connection, stream, path| {
            let count = if path == "/none" { 0 } else { 5 };
            connection.send_grpc_headers(stream).unwrap();
            for index in 0..count {
                let reply = namespace(&index.to_string());
                connection
                    .send_grpc_message(stream, false, |out| reply.encode(out).unwrap())
                    .unwrap();
            }
            connection.send_grpc_ok(stream).unwrap();
        });
        let mut client = Client::connect(&server, Duration::from_secs(20)).unwrap();
        let mut names = |path, stop_at: usize| {
            let mut names = Vec::new();
            let on_message = |reply: admin::GetResponse| {
                names.push(reply.namespace.unwrap_or_default().name);
                if names.len() == stop_at {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            client
                .server_streaming(path, &admin::GetRequest::default(), on_message)
                .unwrap();
            names
        };
        assert_eq!(names("/five", 0), ["0", "1", "2", "3", "4"]);
        assert_eq!(names("/five", 2), ["0", "1"], "cancelled");
        assert_eq!(
            names("/five", 0),
            ["0", "1", "2", "3", "4"],
            "what was left of the cancelled one is not mixed in"
        );
        assert_eq!(names("/none", 0), [] as [&str; 0]);
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn a_unary_call_wants_exactly_one_message() {
        let (server, thread) = serve(|connection, stream, path| {
            connection.send_grpc_headers(stream).unwrap();
            for _ in 0..path.len() - 1 {
                connection.send_grpc_message(stream, false, |_| ()).unwrap();
            }
            connection.send_grpc_ok(stream).unwrap();
        });
        let mut client = Client::connect(&server, Duration::from_secs(20)).unwrap();
        assert_eq!(get(&mut client, "/1").unwrap(), admin::GetResponse::default());
        assert!(
            get(&mut client, "/22")
                .unwrap_err()
                .to_string()
                .contains("2 messages instead of one")
        );
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn a_silent_server_is_given_up_after_the_timeout() {
        let (server, thread) = serve_raw(|mut socket| {
            // Reads until the client has gone.
            let mut sink = [0; 1024];
            while socket.read(&mut sink).is_ok_and(|count| count > 0) {}
        });
        let mut client = Client::connect(&server, Duration::from_millis(50)).unwrap();
        let error = get(&mut client, "/x").unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn what_is_no_gateway_is_told_apart() {
        for answer in [
            &b""[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            b"\x00\x00\x00garbage garbage garbage",
        ] {
            let (server, thread) = serve_raw(move |mut socket| {
                let mut sink = [0; 1024];
                assert!(socket.read(&mut sink).is_ok_and(|count| count > 0));
                // The client may have gone already.
                let _ = socket.write_all(answer);
            });
            let mut client = Client::connect(&server, Duration::from_secs(20)).unwrap();
            let error = get(&mut client, "/x").unwrap_err();
            assert!(matches!(error, ClientError::Broken { .. }), "{error}");
            drop(client);
            thread.join().unwrap();
        }
    }
}
