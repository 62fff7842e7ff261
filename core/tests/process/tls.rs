//! TLS of the listener, with real clients: handshakes, files that change, clients that dawdle.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use prism_core::client::{Client, ClientError, Credentials};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    authority::Authority,
    support::{END_MAX, Gateway, PATIENCE, Setup, get, put},
};

/// Longest value of a keyvalue item: it takes many records of TLS.
const LARGE: usize = 9 << 20;

/// Files of a gateway with TLS, next to which a test keeps its own.
struct Files {
    folder: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path(), "authority");
        let files = Self { folder, authority };
        files
            .authority
            .sign_gateway(&files.path("gateway.crt"), &files.path("gateway.key"));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn setup(&self) -> Setup {
        let file = |key: &str, name: &str| format!("tls.{key}={}", self.path(name).display());
        Setup::new()
            .args(&["--embedded", "memory", "--shards", "2"])
            .args(&["--set", &file("cert_file", "gateway.crt")])
            .args(&["--set", &file("key_file", "gateway.key")])
    }

    fn connect(&self, gateway: &Gateway) -> Client {
        connect(&self.authority.trusted(), gateway).expect("the gateway takes connections")
    }

    /// Starts a gateway and waits until it is ready for this authority's clients.
    fn start(&self, setup: Setup, credentials: &Credentials) -> Gateway {
        let gateway = setup.spawn();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = connect(credentials, &gateway).and_then(|mut client| client.page("/readyz"));
            match answer {
                Ok((200, _)) => return gateway,
                answer => assert!(Instant::now() < deadline, "the gateway is not ready: {answer:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn connect(credentials: &Credentials, gateway: &Gateway) -> Result<Client, ClientError> {
    let server = format!("https://{}", gateway.address());
    Client::connect_as(credentials, &server, PATIENCE)
}

fn metric(client: &mut Client, name: &str) -> f64 {
    let (_, page) = client.page("/metrics").expect("a metrics page");
    let page = String::from_utf8(page).expect("text");
    let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {page}"))
}

/// Output of a program that must be there and succeed, or fail if `ok` is false.
fn output(program: &str, args: &[&str], ok: bool) -> String {
    let done = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.success(), ok, "{program} {args:?}: {text}");
    text
}

#[test]
fn clients_speak_both_protocols_over_tls_and_whoever_does_not_speak_it_is_answered() {
    let files = Files::new();
    let gateway = files.start(files.setup(), &files.authority.trusted());
    let mut client = files.connect(&gateway);
    gateway
        .create_namespace_with(&mut client, "secret", "best-effort")
        .expect("a namespace");
    let large: Vec<u8> = (0..LARGE).map(|place| (place % 251) as u8).collect();
    put(&mut client, "secret", "large", &large).expect("a put");
    assert!(get(&mut client, "secret", "large").expect("a get") == large);
    let (ca, address) = (files.authority.file().display().to_string(), gateway.address());
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let url = format!("https://{address}/readyz");
        let form = "%{http_version} %{http_code}";
        let args = [
            "-sS",
            flag,
            "--noproxy",
            "*",
            "--cacert",
            &ca,
            "-w",
            form,
            "-o",
            "/dev/null",
            &url,
        ];
        assert_eq!(output("curl", &args, true), format!("{version} 200"));
    }
    let target = address.to_string();
    for (version, spoken, ok) in [
        ("-tls1_3", "TLSv1.3", true),
        ("-tls1_2", "TLSv1.2", true),
        ("-tls1_1", "", false),
    ] {
        let args = [
            "s_client",
            "-connect",
            &target,
            "-CAfile",
            &ca,
            "-verify_return_error",
            "-alpn",
            "h2",
            version,
        ];
        let said = output("openssl", &args, ok);
        assert!(
            said.contains(spoken) && (!ok || said.contains("ALPN protocol: h2")),
            "{said}"
        );
    }
    // Another authority's client does not trust the gateway, and one without TLS learns what to do.
    let other = Authority::new(files.folder.path(), "other");
    let refused = connect(&other.trusted(), &gateway).expect_err("an unknown authority");
    assert!(matches!(&refused, ClientError::Untrusted { .. }), "{refused:?}");
    let plain = Client::connect(&target, PATIENCE).and_then(|mut client| client.page("/readyz"));
    let said = plain.expect_err("no TLS").to_string();
    assert!(said.contains("it speaks TLS; write https://"), "{said}");
    let mut stream = gateway.connect();
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"),
        "{answer}"
    );
    // The rules about names of loopback are the same.
    let url = format!("https://{address}/readyz");
    let args = [
        "-sS",
        "--noproxy",
        "*",
        "--cacert",
        &ca,
        "-w",
        "%{http_code}",
        "-H",
        "host: evil.example",
        &url,
    ];
    let evil = output("curl", &args, true);
    assert!(evil.ends_with("403"), "{evil}");
    assert!(metric(&mut client, "prism_certificate_expiry_seconds") > 1.7e9);
}

#[test]
fn a_gateway_with_an_authority_of_clients_lets_only_its_clients_in() {
    let files = Files::new();
    let (cert, key) = (files.path("client.crt"), files.path("client.key"));
    files
        .authority
        .sign_client(&["spiffe://test.example/service/web"], &cert, &key);
    let known = Credentials {
        cert: Some(cert),
        cert_key: Some(key),
        ..files.authority.trusted()
    };
    let clients = format!("tls.client_ca_file={}", files.authority.file().display());
    let mut gateway = files.start(files.setup().args(&["--set", &clients]), &known);
    let mut client = connect(&known, &gateway).expect("a known client");
    gateway
        .create_namespace_with(&mut client, "secret", "best-effort")
        .expect("a namespace");
    put(&mut client, "secret", "a", b"1").expect("a put");
    let enter = |credentials: &Credentials| {
        let entered = connect(credentials, &gateway).and_then(|mut client| client.page("/readyz"));
        entered.expect_err("no entrance").to_string()
    };
    let said = enter(&files.authority.trusted());
    assert!(said.contains("asks for a certificate"), "{said}");
    let other = Authority::new(files.folder.path(), "other");
    let (cert, key) = (files.path("other.crt"), files.path("other.key"));
    other.sign_client(&["spiffe://test.example/service/web"], &cert, &key);
    let said = enter(&Credentials {
        cert: Some(cert),
        cert_key: Some(key),
        ..files.authority.trusted()
    });
    assert!(said.contains("refuses the client"), "{said}");
    // It drains like any other, and a client that waits sees an end in order.
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.await_end(END_MAX).code(), Some(0));
}

#[test]
fn certificates_are_exchanged_while_the_gateway_runs_and_a_set_that_does_not_fit_changes_nothing() {
    let files = Files::new();
    let old = files.authority.trusted();
    let gateway = files.start(files.setup(), &old);
    let mut before = files.connect(&gateway);
    let next = Authority::new(files.folder.path(), "next");
    let replace = |from: &Authority, with_key: bool| {
        let other = files.path("other.key");
        let key = if with_key {
            files.path("gateway.key")
        } else {
            other
        };
        from.sign_gateway(&files.path("gateway.crt"), &key);
    };
    let await_trust = |credentials: &Credentials, what: &str| {
        let deadline = Instant::now() + PATIENCE;
        while connect(credentials, &gateway).is_err() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // The certificate without its key, as in the middle of an exchange.
    replace(&next, false);
    gateway.signal(Signal::HUP);
    let deadline = Instant::now() + PATIENCE;
    while metric(&mut before, "prism_tls_reload_failures_total") < 1.0 {
        assert!(Instant::now() < deadline, "the failure is not counted");
        std::thread::sleep(Duration::from_millis(20));
    }
    connect(&old, &gateway).expect("what was there before stays");
    replace(&next, true);
    gateway.signal(Signal::HUP);
    await_trust(&next.trusted(), "the new certificate is not in force");
    connect(&old, &gateway).expect_err("the old one is gone");
    assert!(before.page("/readyz").is_ok(), "open connections stay");
    // Without a signal the files are looked at now and then.
    replace(&files.authority, true);
    await_trust(&old, "the changed files were not noticed");
}

#[test]
fn who_dawdles_in_the_handshake_or_within_a_record_is_closed_and_others_go_on() {
    let files = Files::new();
    let quick = [
        "--set",
        "limits.handshake_timeout=1s",
        "--set",
        "limits.receive_timeout=1s",
    ];
    let gateway = files.start(files.setup().args(&quick), &files.authority.trusted());
    // The beginning of a record with a ClientHello that never comes.
    let mut slow = gateway.connect();
    slow.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("a few bytes");
    // A handshake, a request, and the beginning of a record.
    let settings = files.authority.trusted().load().expect("settings");
    let name = "localhost".try_into().expect("a name");
    let mut connection = rustls::ClientConnection::new(settings, name).expect("a client");
    let mut half = gateway.connect();
    while connection.is_handshaking() {
        connection.complete_io(&mut half).expect("a handshake");
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    connection.writer().write_all(preface).expect("a preface");
    connection.complete_io(&mut half).expect("a preface");
    half.write_all(&[0x17, 3, 3, 1, 0, 9]).expect("half a record");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("the end of the slow one");
    // What came before its end: settings, the reason, the farewell.
    half.read_to_end(&mut rest).expect("the end of half a record");
    let mut client = files.connect(&gateway);
    assert_eq!(client.page("/readyz").expect("a page").0, 200);
}

#[test]
fn a_file_that_is_missing_is_refused_at_the_start_with_key_and_file() {
    let files = Files::new();
    let missing = Path::new("/nowhere/gateway.key").display().to_string();
    let setup = files.setup().args(&["--set", &format!("tls.key_file={missing}")]);
    let mut gateway = setup.stderr(Stdio::piped()).spawn();
    let lines = gateway.lines();
    let said = lines.find(&missing);
    assert!(said.contains("tls.key_file: cannot read"), "{said}");
    assert_eq!(gateway.await_end(END_MAX).code(), Some(4));
    fs::remove_file(files.path("gateway.key")).expect("the key");
}
