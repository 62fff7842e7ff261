//! An answer "nothing was done" is true, whatever a client leaves unread: large replies, slow
//! readers and writes on the same connections, and every refused write is read back through another
//! one.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use prism_codec::{
    grpc::Code,
    h2::{ErrorCode, StreamId},
    proto::prism::keyvalue::v1::{GetRequest, GetResponse, PutRequest, PutResponse, ScanRequest},
};
use prism_core::{client::Client, config::EmbeddedStore};

use super::{
    log::{http_get, metric},
    raw::{Outcome, RawClient, item},
    support::{CALL_TIMEOUT, Gateway},
};

/// Bytes of a large value; its page is a little longer.
const LARGE: usize = 1 << 20;

/// A store, the durability of its namespace, and the shards.
type Case = (EmbeddedStore, &'static str, usize);

/// A gateway with a namespace "mixed" that holds one large value.
fn gateway((store, durability, shards): Case, output_bytes_max: usize) -> Gateway {
    let gateway = Gateway::start_with(store, shards, |options| {
        options.limits.output_bytes_max = output_bytes_max;
    });
    gateway.create_namespace_at("mixed", durability);
    let put = PutRequest {
        namespace: "mixed".to_owned(),
        id: "large".to_owned(),
        idempotency_token: None,
        items: vec![item(vec![1; LARGE])],
    };
    let _: PutResponse = gateway
        .client()
        .unary("/prism.keyvalue.v1.KeyValue/Put", &put)
        .expect("a large value");
    gateway
}

/// Sends 64 reads of the large value, and a small write after each, without reading any answer.
fn send_mixed(client: &mut RawClient, name: &str) -> (Vec<StreamId>, BTreeMap<StreamId, String>) {
    let (mut reads, mut writes) = (Vec::new(), BTreeMap::new());
    for number in 0..64 {
        reads.push(client.get("mixed", "large"));
        let id = format!("{name}-{number}");
        writes.insert(client.put("mixed", &id, id.clone().into_bytes()), id);
    }
    client.transmit();
    (reads, writes)
}

fn stored(client: &mut Client, id: &str) -> Option<Vec<u8>> {
    let get = GetRequest {
        namespace: "mixed".to_owned(),
        id: id.to_owned(),
        predicate: None,
        selection: None,
    };
    let found: GetResponse = client
        .unary("/prism.keyvalue.v1.KeyValue/Get", &get)
        .expect("a read");
    found.items.into_iter().next().map(|item| item.value)
}

/// Compares the answers to a client's writes with the stored values. Returns how many were done and
/// refused.
fn check_writes(
    address: &str,
    writes: &BTreeMap<StreamId, String>,
    outcomes: &BTreeMap<StreamId, Outcome>,
) -> (usize, usize) {
    let mut other = Client::connect(address, CALL_TIMEOUT).expect("the gateway takes connections");
    let (mut done, mut refused) = (0, 0);
    for (stream, id) in writes {
        let found = stored(&mut other, id);
        match &outcomes[stream] {
            Outcome::Done(_) => {
                done += 1;
                assert_eq!(found.as_deref(), Some(id.as_bytes()), "{id} was acknowledged");
            }
            // In gRPC all of these mean that the call may be repeated, since it had no effect.
            said @ (Outcome::Refused(Code::ResourceExhausted | Code::DeadlineExceeded, _)
            | Outcome::Reset(ErrorCode::REFUSED_STREAM | ErrorCode::ENHANCE_YOUR_CALM)) => {
                refused += 1;
                assert_eq!(found, None, "{id} is stored, and its client was told {said:?}");
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    (done, refused)
}

fn requests(gateway: &Gateway, method: &str, code: &str) -> usize {
    let (_, text) = http_get(gateway, "/metrics");
    let wanted = format!("prism_requests_total{{namespace=\"mixed\",method=\"{method}\",code=\"{code}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted));
    line.map_or(0, |count| count.parse().expect("a number"))
}

#[test]
fn a_client_that_asks_for_more_than_the_limit_and_reads_gets_every_answer() {
    for case in [
        (EmbeddedStore::Memory, "best-effort", 1),
        (EmbeddedStore::Memory, "best-effort", 2),
        (EmbeddedStore::Sqlite, "best-effort", 1),
        (EmbeddedStore::Sqlite, "eventual", 2),
        (EmbeddedStore::Sqlite, "strong", 1),
    ] {
        let gateway = gateway(case, 4 << 20);
        std::thread::scope(|scope| {
            for number in 0..3 {
                let address = gateway.address();
                scope.spawn(move || {
                    let mut client = RawClient::connect(address);
                    let (reads, writes) = send_mixed(&mut client, &format!("late-{number}"));
                    let calls: Vec<_> = reads.iter().chain(writes.keys()).copied().collect();
                    let outcomes = client.outcomes(&calls);
                    for read in &reads {
                        assert!(
                            matches!(outcomes[read], Outcome::Done(bytes) if bytes > LARGE),
                            "{case:?}: {:?}",
                            outcomes[read]
                        );
                    }
                    assert_eq!(check_writes(address, &writes, &outcomes), (64, 0), "{case:?}");
                });
            }
        });
        assert_eq!(requests(&gateway, "Put", "OK"), 3 * 64 + 1);
    }
}

#[test]
fn a_write_that_is_refused_beside_unread_answers_has_no_effect() {
    leave_unread((EmbeddedStore::Memory, "best-effort", 2));
}

#[test]
fn so_it_is_with_sqlite_at_each_durability() {
    for (durability, shards) in [("best-effort", 1), ("eventual", 1), ("strong", 2)] {
        leave_unread((EmbeddedStore::Sqlite, durability, shards));
    }
}

/// Reads nothing until the gateway has refused all waiting calls; then compares the answers with
/// the stored and counted writes.
fn leave_unread(case: Case) {
    let gateway = gateway(case, 4 << 20);
    let mut client = RawClient::with_window(gateway.address(), 64 << 10);
    let mut reads: Vec<_> = (0..8).map(|_| client.get("mixed", "large")).collect();
    client.transmit();
    // Five answers are more than may wait, minus the window.
    let deadline = Instant::now() + CALL_TIMEOUT;
    while requests(&gateway, "Get", "OK") < 5 {
        assert!(Instant::now() < deadline, "the output does not fill");
        std::thread::yield_now();
    }
    let (more, writes) = send_mixed(&mut client, "refused");
    reads.extend(more);
    assert!(metric(&gateway, "prism_shed_total", 131.0) >= 131.0);
    let calls: Vec<_> = reads.iter().chain(writes.keys()).copied().collect();
    let outcomes = client.outcomes(&calls);
    assert_eq!(check_writes(gateway.address(), &writes, &outcomes), (0, 64));
    let unread = Outcome::Refused(Code::ResourceExhausted, "ANSWERS_UNREAD".to_owned());
    let answered = reads.iter().filter(|read| outcomes[*read] != unread);
    let answered: Vec<_> = answered.map(|read| &outcomes[read]).collect();
    assert!(
        answered.len() == 5
            && answered
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Done(bytes) if *bytes > LARGE)),
        "{answered:?}"
    );
    // The metrics agree with the client; the large value was written by another.
    assert_eq!(requests(&gateway, "Put", "OK"), 1);
    assert_eq!(requests(&gateway, "Put", "RESOURCE_EXHAUSTED"), 64);
    assert_eq!(requests(&gateway, "Get", "RESOURCE_EXHAUSTED"), reads.len() - 5);
    // Once it has been read, the connection works as before.
    let write = client.put("mixed", "afterwards", b"afterwards".to_vec());
    client.transmit();
    let outcomes = client.outcomes(&[write]);
    let writes = BTreeMap::from([(write, "afterwards".to_owned())]);
    assert_eq!(check_writes(gateway.address(), &writes, &outcomes), (1, 0));
}

#[test]
fn many_scans_of_a_late_reader_lose_no_page() {
    for case in [
        (EmbeddedStore::Memory, "best-effort", 2),
        (EmbeddedStore::Sqlite, "best-effort", 1),
    ] {
        let gateway = gateway(case, 2 << 20);
        let mut writer = gateway.client();
        for number in 0..8 {
            let put = PutRequest {
                namespace: "mixed".to_owned(),
                id: format!("page-{number}"),
                idempotency_token: None,
                items: vec![item(vec![2; 256 << 10])],
            };
            let _: PutResponse = writer
                .unary("/prism.keyvalue.v1.KeyValue/Put", &put)
                .expect("a value");
        }
        let mut client = RawClient::connect(gateway.address());
        let scan = ScanRequest {
            namespace: "mixed".to_owned(),
            selection: Some(prism_codec::proto::prism::keyvalue::v1::Selection {
                item_limit: 1,
                ..Default::default()
            }),
        };
        let scans: Vec<_> = (0..30).map(|_| client.call("Scan", &scan)).collect();
        client.transmit();
        let outcomes = client.outcomes(&scans);
        for scan in &scans {
            assert!(
                matches!(outcomes[scan], Outcome::Done(bytes) if bytes > LARGE + 8 * (256 << 10)),
                "{case:?}: {:?}",
                outcomes[scan]
            );
        }
    }
}

/// A pipeline of large reads and small writes over HTTP/1.1, of which nothing is read for a while.
/// Every other write has a deadline of a millisecond, which may be over when its turn comes.
#[test]
fn a_pipeline_over_http_1_is_answered_whole_and_truly() {
    for case in [
        (EmbeddedStore::Memory, "best-effort", 2),
        (EmbeddedStore::Sqlite, "best-effort", 1),
        (EmbeddedStore::Sqlite, "strong", 2),
    ] {
        let gateway = gateway(case, 2 << 20);
        let mut stream = TcpStream::connect(gateway.address()).expect("the gateway takes connections");
        stream.set_read_timeout(Some(CALL_TIMEOUT)).expect("a time-out");
        let mut pipeline = String::new();
        for number in 0..24 {
            request(&mut pipeline, "Get", "", r#"{"namespace":"mixed","id":"large"}"#);
            let deadline = ["", "connect-timeout-ms: 1\r\n"][number % 2];
            // Base64 of "k" and of "written".
            let put = format!(
                r#"{{"namespace":"mixed","id":"id-{number}","items":[{{"key":"aw==","value":"d3JpdHRlbg=="}}]}}"#
            );
            request(&mut pipeline, "Put", deadline, &put);
        }
        stream.write_all(pipeline.as_bytes()).expect("a pipeline");
        // More answers than the connection takes are waiting, however large the kernel's buffers
        // are.
        let answered = || requests(&gateway, "Get", "OK");
        let deadline = Instant::now() + CALL_TIMEOUT;
        let (mut seen, mut since) = (answered(), Instant::now());
        while seen == 0 || since.elapsed() < Duration::from_millis(200) {
            assert!(Instant::now() < deadline, "{case:?}: never at rest");
            let now = answered();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(seen < 24, "{case:?}: {seen} large answers wait for a client");
        let mut reader = BufReader::new(stream);
        let mut other = gateway.client();
        let mut done = 1;
        for number in 0..24 {
            let (status, body) = answer(&mut reader);
            assert!(status == 200 && body.len() > LARGE, "{case:?}: a read: {status}");
            let (status, body) = answer(&mut reader);
            let found = stored(&mut other, &format!("id-{number}"));
            if status == 200 {
                assert_eq!(found.as_deref(), Some(&b"written"[..]), "{case:?}: {number}");
                done += 1;
                continue;
            }
            let text = String::from_utf8_lossy(&body);
            assert!(status == 504 && number % 2 == 1, "{case:?}: {status} {text}");
            if text.contains("nothing was done") {
                assert_eq!(found, None, "{case:?}: {number} was answered {text}");
            }
        }
        assert_eq!(requests(&gateway, "Put", "OK"), done, "{case:?}");
    }
}

/// Appends a call in JSON.
fn request(pipeline: &mut String, method: &str, field: &str, body: &str) {
    pipeline.push_str(&format!(
        "POST /prism.keyvalue.v1.KeyValue/{method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{field}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    ));
}

/// Status and body of the next answer of a connection.
fn answer(reader: &mut impl BufRead) -> (u16, Vec<u8>) {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer in time");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(code) = line.strip_prefix("http/1.1 ") {
            status = code[..3].parse().ok();
        } else if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().expect("a length");
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a whole answer");
    (status.expect("a status line"), body)
}
