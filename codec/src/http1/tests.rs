//! Promises of the HTTP/1.1 parser, request by request.

use super::*;

/// A request as the application sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Feeds `pieces` one after the other, keeping the tail as a driver does. Returns the requests, or
/// the error.
fn feed<'p>(
    body_max: usize,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Result<(Vec<Seen>, bool), HttpError> {
    let mut connection = Connection::new(body_max);
    let mut seen: Vec<Seen> = Vec::new();
    let mut complete = 0;
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut input = &buffer[..];
        while let Some(event) = connection.poll_event(&mut input)? {
            match event {
                Event::Head(head) => {
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    let headers = head
                        .headers
                        .iter()
                        .map(|(name, value)| (name.to_owned(), text(value)))
                        .collect();
                    seen.push(Seen {
                        line: format!("{} {}", head.method, head.target),
                        headers,
                        body: Vec::new(),
                    });
                }
                Event::Body(bytes) => {
                    assert!(!bytes.is_empty());
                    seen.last_mut()
                        .expect("a head came first")
                        .body
                        .extend_from_slice(bytes);
                }
                Event::End => complete += 1,
            }
        }
        let rest = input.len();
        buffer.drain(..buffer.len() - rest);
        assert!(buffer.len() <= HTTP1_HEAD_BYTES_MAX + piece.len());
    }
    assert!(complete == seen.len() || complete + 1 == seen.len());
    Ok((seen, connection.keep_alive()))
}

fn one(request: &str) -> Result<Seen, u16> {
    let (mut seen, _) = feed(1_000, [request.as_bytes()]).map_err(|error| error.status)?;
    assert_eq!(seen.len(), 1, "{request:?}");
    Ok(seen.remove(0))
}

fn status(request: &str) -> u16 {
    one(request).expect_err(request)
}

const PIPELINE: &str = "\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
    GET /b?q=1 HTTP/1.1\r\nhost:x\r\nX-Empty:\r\n\r\n\
    POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
    3;name=\"v\"\r\nabc\r\nA \r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n\
    GET /d HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\nGET /never HTTP/1.1\r\n\r\n";

#[test]
fn a_pipeline_reads_the_same_however_it_is_cut() {
    let (whole, keep_alive) = feed(100, [PIPELINE.as_bytes()]).expect("well-formed");
    assert!(!keep_alive);
    let lines: Vec<_> = whole.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(lines, ["POST /a", "GET /b?q=1", "POST /c", "GET /d"]);
    let bodies: Vec<_> = whole.iter().map(|seen| seen.body.as_slice()).collect();
    assert_eq!(bodies, [&b"hello"[..], b"", b"abc0123456789", b""]);
    assert_eq!(
        whole[1].headers,
        [("host".into(), "x".into()), ("X-Empty".into(), String::new())]
    );
    for size in 1..PIPELINE.len() {
        let (cut, _) = feed(100, PIPELINE.as_bytes().chunks(size)).expect("well-formed");
        assert_eq!(cut, whole, "pieces of {size} bytes");
    }
    for at in 0..PIPELINE.len() {
        let (first, second) = PIPELINE.as_bytes().split_at(at);
        assert_eq!(
            feed(100, [first, second]).expect("well-formed").0,
            whole,
            "cut at {at}"
        );
    }
}

#[test]
fn keep_alive_follows_version_and_connection_field() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive, close\r\n\r\n", false),
    ] {
        assert_eq!(feed(0, [head.as_bytes()]).expect(head).1, expected, "{head:?}");
    }
    let mut connection = Connection::new(10);
    assert!(connection.is_idle(b"") && !connection.is_idle(b"G"));
    connection.close_after_request();
    let mut input = &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..];
    assert!(connection.poll_event(&mut input).expect("closed").is_none() && input.is_empty());
}

#[test]
fn smuggling_shapes_are_refused() {
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    for (fields, expected) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x1\r\n", 400),
        ("Content-Length: 1 1\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 99999999999999999999999\r\n", 413),
        ("Content-Length: 1001\r\n", 413),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        ("Transfer-Encoding : chunked\r\n", 400),
        ("X: a\r\n b\r\n", 400),
        ("X: a\n", 400),
        ("X: a\0\r\n", 400),
        ("X\u{7f}: a\r\n", 400),
        ("Host: y\r\n", 400),
        ("Expect: 200-ok\r\n", 417),
    ] {
        assert_eq!(status(&with(fields)), expected, "{fields:?}");
    }
    assert_eq!(
        status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        400
    );
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\nHost: x\n\n"), 400);
    assert_eq!(status("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
    assert_eq!(status("GET /\r\n\r\n"), 400);
    assert_eq!(status("\x16\x03\x01\x02\r\n\r\n"), 400);
    let agreed = one(&with("Content-Length: 0\r\nContent-Length: 0\r\n")).expect("two equal lengths are one");
    assert!(agreed.body.is_empty());
}

#[test]
fn bad_chunks_are_refused() {
    let with = |body: &str| format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    for body in [
        "x\r\n",
        "\r\n",
        "-1\r\n",
        "0x1\r\na\r\n",
        "+1\r\na\r\n",
        " 1\r\na\r\n",
        "1\na\r\n",
        "1 1\r\na\r\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1;\x01\r\na\r\n",
        "1;\r\r\na\r\n",
        "10000000000000000\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\na: b\n\r\n\r\n",
    ] {
        assert_eq!(status(&with(body)), 400, "{body:?}");
    }
    assert_eq!(status(&with(&format!("1;{}", "x".repeat(300)))), 400);
    assert_eq!(status(&with(&format!("0\r\n{}", "a: b\r\n".repeat(700)))), 431);
    assert_eq!(status(&with("3e9\r\n")), 413);
    assert_eq!(
        status(&with(&format!("3e8\r\n{}\r\n1\r\n", "x".repeat(1_000)))),
        413
    );
    assert_eq!(
        one(&with(&format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1_000))))
            .expect("fits")
            .body
            .len(),
        1_000
    );
}

#[test]
fn heads_are_bounded() {
    let long_target = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    assert_eq!(status(&long_target), 414);
    let long_field = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(status(&long_field), 431);
    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(status(&many(64)), 431);
    assert_eq!(one(&many(63)).expect("64 fields").headers.len(), 64);
    // A head that arrives byte by byte is searched once, not once per byte.
    let started = std::time::Instant::now();
    let error = feed(0, long_field.as_bytes().chunks(1)).expect_err("too long");
    assert_eq!(error.status, 431);
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
}

#[test]
fn after_an_error_nothing_more_is_read() {
    let mut connection = Connection::new(10);
    let mut input = &b"BAD\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"[..];
    assert!(connection.poll_event(&mut input).is_err());
    assert!(connection.poll_event(&mut input).expect("closed").is_none());
    assert!(!connection.keep_alive());
}

#[test]
fn continue_is_asked_for_only_with_a_body() {
    for (request, expected) in [
        (
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            false,
        ),
    ] {
        let mut input = request.as_bytes();
        let event = Connection::default().poll_event(&mut input).expect(request);
        assert!(
            matches!(event, Some(Event::Head(head)) if head.expects_continue == expected),
            "{request:?}"
        );
    }
}

#[test]
fn targets_split_into_path_and_query() {
    for (target, path, query) in [
        ("/", "/", ""),
        ("/a/b?c=d?e", "/a/b", "c=d?e"),
        ("http://host:1/a?b", "/a", "b"),
        ("http://host", "/", ""),
        ("*", "*", ""),
        ("/x?u=http://y/z", "/x", "u=http://y/z"),
        ("/a#f", "/a", ""),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut input = request.as_bytes();
        let event = Connection::default().poll_event(&mut input).expect(target);
        let Some(Event::Head(head)) = event else {
            panic!("no head for {target}")
        };
        assert_eq!((head.path(), head.query()), (path, query), "{target}");
        assert_eq!(head.headers.first("HOST"), Some(&b"x"[..]));
        assert_eq!(head.headers.first("absent"), None);
    }
}

#[test]
fn responses_are_well_formed() {
    let mut out = Vec::new();
    let headers: [(&str, &[u8]); 1] = [("x-text", b"a\r\nset-cookie: b")];
    let response = Response {
        headers: &headers,
        content_type: "text/plain",
        body: b"hi",
        keep_alive: true,
        ..Response::default()
    };
    put_response(&mut out, &response);
    let expected = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-text: a  set-cookie: b\r\n\
        connection: keep-alive\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(String::from_utf8_lossy(&out), expected);

    out.clear();
    put_response(
        &mut out,
        &Response {
            head_only: true,
            ..response
        },
    );
    assert!(out.ends_with(b"content-length: 2\r\n\r\n"));

    out.clear();
    put_response(
        &mut out,
        &Response {
            status: 204,
            keep_alive: false,
            ..Response::default()
        },
    );
    assert_eq!(out, b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");

    out.clear();
    put_head_chunked(&mut out, 200, "application/json", &[], true);
    put_chunk(&mut out, b"");
    put_chunk(&mut out, &[b'x'; 17]);
    put_chunks_end(&mut out);
    assert!(out.ends_with(b"\r\n\r\n11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"));
}

#[test]
fn errors_are_json_and_close() {
    for status in [400, 405, 413, 414, 417, 431, 501, 505] {
        let mut out = Vec::new();
        put_error(
            &mut out,
            &HttpError {
                status,
                message: "what is wrong",
            },
        );
        let text = String::from_utf8(out).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("connection: close"),
            "{head}"
        );
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["message"], "what is wrong");
    }
}

/// Mutated requests: no panic, and the result does not depend on how the bytes are cut.
#[test]
fn damaged_requests_read_the_same_however_they_are_cut() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    for round in 0..3_000 {
        let mut bytes = PIPELINE.as_bytes().to_vec();
        for _ in 0..=next(4) {
            if bytes.is_empty() {
                break;
            }
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = next(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n :;0f,\0"[next(9)]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let whole = feed(100, [&bytes[..]]);
        let size = 1 + next(40);
        let cut = feed(100, bytes.chunks(size));
        match (whole, cut) {
            (Ok(whole), Ok(cut)) => assert_eq!(whole, cut, "round {round}"),
            (Err(_), Err(_)) => {}
            (whole, cut) => panic!("round {round}: {whole:?} whole, {cut:?} in pieces of {size}: {bytes:?}"),
        }
    }
}
