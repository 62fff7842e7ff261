//! Attacks on identity and access, each as a test named after it, against a gateway with TLS.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prism_codec::{
    method::{Api, Method, Permissions, Shape},
    proto::prism::{
        admin::v1::{
            CreateRequest, CreateResponse, GetRequest as GetNamespace, GetResponse as GotNamespace,
            ListRequest, ListResponse, UpdateRequest, UpdateResponse,
        },
        keyvalue::v1::{GetRequest, GetResponse, Item, PutRequest, PutResponse},
        pubsub::v1::{Message, PublishRequest, PublishResponse, SubscribeRequest, SubscribeResponse},
    },
};
use prism_core::{
    client::{Client, ClientError, Credentials},
    config::EmbeddedStore,
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, SanType, date_time_ymd};
use tempfile::TempDir;

use crate::{
    authority::Authority,
    support::{CALL_TIMEOUT, Gateway},
};

const GET: &str = "/prism.keyvalue.v1.KeyValue/Get";
const PUT: &str = "/prism.keyvalue.v1.KeyValue/Put";
const UNAUTHENTICATED: i32 = 16;
const PERMISSION_DENIED: i32 = 7;

/// A gateway with identity, its authority, and files of its callers.
struct World {
    /// Dropped with the last test that uses it.
    _gateway: Mutex<Gateway>,
    address: String,
    authority: Authority,
    folder: TempDir,
}

/// The one that all tests that run at a time share.
fn world() -> Arc<World> {
    static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());
    let mut known = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(world) = known.upgrade() {
        return world;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "authority");
    let (cert, key) = (
        folder.path().join("gateway.crt"),
        folder.path().join("gateway.key"),
    );
    authority.sign_gateway(&cert, &key);
    let gateway = Gateway::start_with(EmbeddedStore::Memory, 2, |options| {
        options.tls.cert_file = Some(cert);
        options.tls.key_file = Some(key);
        options.tls.client_ca_file = Some(authority.file().to_owned());
        options.identity.trust_domain = Some("test.example".to_owned());
        options.identity.admins = vec!["root".to_owned()];
        options.identity.viewers = vec!["scraper".to_owned()];
    });
    let world = Arc::new(World {
        address: gateway.address().to_owned(),
        _gateway: Mutex::new(gateway),
        authority,
        folder,
    });
    *known = Arc::downgrade(&world);
    world
}

impl World {
    fn server(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Credentials with a certificate for this id.
    fn credentials(&self, id: &str) -> Credentials {
        let files = self.files();
        self.authority
            .sign_client(&[id], files.0.as_path(), files.1.as_path());
        self.with(files)
    }

    /// Credentials with a certificate of this authority, changed by `change`.
    fn signed_by(&self, authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Credentials {
        let files = self.files();
        let mut params = CertificateParams::new([]).expect("no names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        authority.sign(params, &files.0, &files.1);
        self.with(files)
    }

    /// Names of the files of another client.
    fn files(&self) -> (PathBuf, PathBuf) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = |end: &str| self.folder.path().join(format!("client-{number}.{end}"));
        (path("crt"), path("key"))
    }

    fn with(&self, (cert, key): (PathBuf, PathBuf)) -> Credentials {
        Credentials {
            cert: Some(cert),
            cert_key: Some(key),
            ..self.authority.trusted()
        }
    }

    fn connect(&self, credentials: &Credentials) -> Result<Client, ClientError> {
        Client::connect_as(credentials, &self.server(), CALL_TIMEOUT)
    }

    /// A client of this service.
    fn service(&self, name: &str) -> Client {
        let id = format!("spiffe://test.example/service/{name}");
        self.connect(&self.credentials(&id)).expect("a known client")
    }

    /// A member of this team.
    fn member(&self, team: &str) -> Client {
        let id = format!("spiffe://test.example/team/{team}/service/any");
        self.connect(&self.credentials(&id)).expect("a known client")
    }

    /// Makes a namespace of the team `shop` with these consumers, each with its permissions.
    fn create(&self, name: &str, api: &str, consumers: &[(&str, &str)]) {
        let request = CreateRequest {
            yaml: file(name, api, consumers),
        };
        let _: CreateResponse = self
            .member("shop")
            .unary("/prism.admin.v1.Namespaces/Create", &request)
            .expect("its team creates a namespace");
    }

    /// Puts another list of consumers in the place of the one that is there.
    fn update(&self, name: &str, api: &str, consumers: &[(&str, &str)]) {
        let request = UpdateRequest {
            yaml: file(name, api, consumers),
            base_version: 0,
        };
        let _: UpdateResponse = self
            .member("shop")
            .unary("/prism.admin.v1.Namespaces/Update", &request)
            .expect("its team updates a namespace");
    }
}

fn file(name: &str, api: &str, consumers: &[(&str, &str)]) -> String {
    let mut yaml =
        format!("namespace: {name}\nteam: shop\nclient_api: {api}\nneeds: {{durability: best-effort}}\n");
    if !consumers.is_empty() {
        yaml += "access:\n  consumers:\n";
    }
    for (service, permissions) in consumers {
        yaml += &format!("    - service: {service}\n      permissions: [{permissions}]\n");
    }
    yaml
}

fn get(client: &mut Client, namespace: &str) -> Result<GetResponse, ClientError> {
    let request = GetRequest {
        namespace: namespace.to_owned(),
        id: "a".to_owned(),
        ..GetRequest::default()
    };
    client.unary(GET, &request)
}

fn put(client: &mut Client, namespace: &str) -> Result<PutResponse, ClientError> {
    let request = PutRequest {
        namespace: namespace.to_owned(),
        id: "a".to_owned(),
        items: vec![Item {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            ..Item::default()
        }],
        ..PutRequest::default()
    };
    client.unary(PUT, &request)
}

/// Code and message of a refused call.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (i32, String) {
    match result {
        Err(ClientError::Status(status)) => (status.code, status.message),
        other => panic!("not refused: {other:?}"),
    }
}

/// All that a refusal tells, but for the id of the request.
#[track_caller]
fn whole<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (i32, String, Vec<(String, Vec<u8>)>) {
    let Err(ClientError::Status(status)) = result else {
        panic!("not refused: {result:?}");
    };
    let details = status
        .details
        .into_iter()
        .map(|detail| (detail.type_url, detail.value));
    let told = details.filter(|(name, _)| !name.ends_with("RequestInfo"));
    (status.code, status.message, told.collect())
}

/// Whether the client gets no answer at all: its certificate is refused.
#[track_caller]
fn is_kept_out(credentials: &Credentials) {
    let entered = world()
        .connect(credentials)
        .and_then(|mut client| client.page("/readyz"));
    match entered {
        Err(ClientError::Broken { .. } | ClientError::Untrusted { .. }) => {}
        other => panic!("let in: {other:?}"),
    }
}

/// Status and body of a page, asked for by curl.
fn curl(credentials: &Credentials, version: &str, path: &str, more: &[&str]) -> String {
    let text = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", version, "-w", " %{http_code}"]);
    command.args(["--cacert", &text(&credentials.ca).expect("an authority")]);
    if let (Some(cert), Some(key)) = (text(&credentials.cert), text(&credentials.cert_key)) {
        command.args(["--cert", &cert, "--key", &key]);
    }
    command
        .args(more)
        .arg(world().server() + path)
        .stdin(Stdio::null());
    let done = command.output().expect("curl is there");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A Get as JSON.
fn curl_get(credentials: &Credentials, version: &str, namespace: &str, more: &[&str]) -> String {
    let body = format!("{{\"namespace\":\"{namespace}\",\"id\":\"a\"}}");
    let mut args = vec!["-H", "content-type: application/json", "-d", &body];
    args.extend(more);
    curl(credentials, version, GET, &args)
}

#[test]
fn a01_without_credentials_nothing_is_allowed_but_to_ask_for_health() {
    let world = world();
    world.create("a01", "keyvalue", &[]);
    let nobody = world.authority.trusted();
    let mut client = world.connect(&nobody).expect("TLS itself is open");
    for namespace in ["a01", "missing"] {
        let said = refusal(get(&mut client, namespace));
        assert_eq!(said, (UNAUTHENTICATED, "no valid credentials".to_owned()));
    }
    let listed: Result<ListResponse, _> =
        client.unary("/prism.admin.v1.Namespaces/List", &ListRequest::default());
    assert_eq!(refusal(listed).0, UNAUTHENTICATED);
    assert_eq!(client.page("/readyz").expect("a page").0, 200);
    assert_eq!(client.page("/metrics").expect("a page").0, 401);
    for version in ["--http1.1", "--http2"] {
        let said = curl_get(&nobody, version, "a01", &[]);
        assert!(
            said.ends_with(" 401") && said.contains("no valid credentials"),
            "{said}"
        );
    }
}

#[test]
fn a02_to_a07_certificates_that_name_nobody_are_refused_in_the_handshake() {
    const GOOD: &str = "spiffe://test.example/service/root";
    let world = world();
    let other = Authority::new(world.folder.path(), "other");
    let uri = |id: &str| SanType::URI(id.try_into().expect("ASCII"));
    let day = Duration::from_secs(86_400);
    let now = date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).expect("a date");
    // The good one gets in: what follows differs from it by one thing each.
    assert!(world.connect(&world.credentials(GOOD)).is_ok());
    // A02: another authority.
    is_kept_out(&world.signed_by(&other, |params| params.subject_alt_names = vec![uri(GOOD)]));
    let wrong = |change: fn(&mut CertificateParams)| {
        is_kept_out(&world.signed_by(&world.authority, |params| {
            params.subject_alt_names = vec![uri(GOOD)];
            change(params);
        }));
    };
    // A03: another trust domain. A04: two ids.
    is_kept_out(&world.credentials("spiffe://prod.example/service/root"));
    let second = uri("spiffe://test.example/service/web");
    is_kept_out(&world.signed_by(&world.authority, |params| {
        params.subject_alt_names = vec![uri(GOOD), second];
    }));
    // A05: one that may sign. A06: one for servers.
    wrong(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    wrong(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    wrong(|params| params.extended_key_usages = Vec::new());
    // A07: too late, too early.
    is_kept_out(&world.signed_by(&world.authority, |params| {
        params.subject_alt_names = vec![uri(GOOD)];
        (params.not_before, params.not_after) = (now - day * 2, now - day);
    }));
    is_kept_out(&world.signed_by(&world.authority, |params| {
        params.subject_alt_names = vec![uri(GOOD)];
        (params.not_before, params.not_after) = (now + day, now + day * 2);
    }));
    // A10: the same last segment elsewhere. A11: the name of an administrator, and no id.
    is_kept_out(&world.credentials("spiffe://test.example/ns/other/sa/root"));
    is_kept_out(&world.signed_by(&world.authority, |params| {
        params.distinguished_name.push(DnType::CommonName, "root");
    }));
}

#[test]
fn a08_a_connection_ends_with_the_certificate_of_its_client() {
    let world = world();
    world.create("a08", "keyvalue", &[("short", "read")]);
    let now = date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).expect("a date");
    let credentials = world.signed_by(&world.authority, |params| {
        let id = "spiffe://test.example/service/short";
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        params.not_after = now + Duration::from_secs(3);
    });
    let mut client = world.connect(&credentials).expect("it is good still");
    let deadline = Instant::now() + CALL_TIMEOUT;
    while get(&mut client, "a08").is_ok() {
        assert!(Instant::now() < deadline, "the connection goes on for ever");
        thread::sleep(Duration::from_millis(50));
    }
    is_kept_out(&credentials);
}

#[test]
fn a12_and_a13_headers_that_name_a_caller_are_ignored() {
    let world = world();
    world.create("a12", "keyvalue", &[("web", "read")]);
    let stranger = world.credentials("spiffe://test.example/service/stranger");
    for version in ["--http1.1", "--http2"] {
        for header in [
            "x-prism-service: web",
            "x-prism-team: shop",
            "x-forwarded-client-cert: URI=spiffe://test.example/service/web",
        ] {
            let said = curl_get(&stranger, version, "a12", &["-H", header]);
            assert!(
                said.ends_with(" 403") && said.contains("access denied"),
                "{header}: {said}"
            );
        }
        let web = world.credentials("spiffe://test.example/service/web");
        let said = curl_get(&web, version, "a12", &[]);
        assert!(said.ends_with(" 200"), "{said}");
    }
}

/// A request in encoded form.
#[derive(Debug)]
struct Encoded(Vec<u8>);

impl prost::Message for Encoded {
    fn encode_raw(&self, buffer: &mut impl prost::bytes::BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl prost::bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        unreachable!("requests are not decoded here")
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A request of a method with all that it must have: what a request lacks is refused to everybody,
/// before anything is looked up.
fn request_of(method: Method, namespace: &str) -> Encoded {
    let field = |number: u8, bytes: &[u8]| {
        let mut encoded = vec![number << 3 | 2, u8::try_from(bytes.len()).expect("short")];
        encoded.extend_from_slice(bytes);
        encoded
    };
    let number = |number: u8, value: u8| vec![number << 3, value];
    let (id, group, message) = (field(2, b"id"), field(3, b"group"), field(3, &[]));
    let more = match method.spec().path.rsplit('/').take(2).collect::<Vec<_>>()[..] {
        ["Put", _] => [id, field(4, &field(1, b"key"))].concat(),
        ["Get", _] => id,
        ["Delete", "prism.keyvalue.v1.KeyValue"] => [id, field(4, &field(1, &[]))].concat(),
        ["Mutate", _] => {
            let put = field(2, &field(1, &field(1, b"key")));
            field(3, &[field(1, b"id"), put].concat())
        }
        ["CompareAndSwap", _] => [id, field(3, b"key"), field(5, &[])].concat(),
        ["Publish" | "PublishBatch" | "Send" | "SendBatch", _] => message,
        ["Commit", _] => [group, field(4, &[1])].concat(),
        ["ResetGroup", _] => [group, field(4, &number(1, 2))].concat(),
        ["DeleteGroup", _] => group,
        ["Ack" | "Nack" | "Extend", _] => field(3, b"receipt"),
        ["Redrive" | "Delete", _] => number(4, 4),
        _ => Vec::new(),
    };
    Encoded([field(1, namespace.as_bytes()), more].concat())
}

#[test]
fn a25_every_method_is_allowed_exactly_to_those_who_hold_what_it_needs() {
    let world = world();
    let sets = [
        ("nothing", Permissions::NONE),
        ("read", Permissions::READ),
        ("write", Permissions::WRITE),
        ("read, write", Permissions::READ.and(Permissions::WRITE)),
        ("admin", Permissions::ADMIN),
    ];
    let consumers: Vec<(String, &str)> = sets[1..]
        .iter()
        .map(|(words, _)| (format!("holds-{}", words.replace(", ", "-")), *words))
        .collect();
    let consumers: Vec<_> = consumers.iter().map(|(name, words)| (&**name, *words)).collect();
    let mut seen = 0;
    for (api, word) in [
        (Api::KeyValue, "keyvalue"),
        (Api::PubSub, "pubsub"),
        (Api::Queue, "queue"),
    ] {
        let namespace = format!("a25-{word}");
        world.create(&namespace, word, &consumers);
        for (words, held) in sets {
            let mut client = world.service(&format!("holds-{}", words.replace(", ", "-")));
            for method in Method::all().filter(|method| method.api() == api) {
                let spec = method.spec();
                // A stream that opens is left at once.
                let request = request_of(method, &namespace);
                let code = match spec.shape {
                    Shape::Unary => client.unary::<GetResponse>(spec.path, &request).map(drop),
                    _ => {
                        client = client.with_timeout(Duration::from_millis(200));
                        client.server_streaming(spec.path, &request, |_: GetResponse| ControlFlow::Break(()))
                    }
                };
                let denied =
                    matches!(&code, Err(ClientError::Status(status)) if status.code == PERMISSION_DENIED);
                assert_eq!(
                    denied,
                    !held.allow(spec.permissions),
                    "{} with {words}: {code:?}",
                    spec.path
                );
                if !matches!(code, Ok(()) | Err(ClientError::Status(_))) || spec.shape != Shape::Unary {
                    client = world.service(&format!("holds-{}", words.replace(", ", "-")));
                }
                seen += 1;
            }
        }
    }
    let data = Method::all().filter(|method| method.api().is_data()).count();
    assert_eq!(seen, sets.len() * data, "a new API has to be tested here as well");
}

#[test]
fn a27_a_swap_needs_both_permissions_as_it_tells_the_value() {
    let spec = prism_codec::method::KeyValueMethod::CompareAndSwap.spec();
    assert!(!Permissions::READ.allow(spec.permissions) && !Permissions::WRITE.allow(spec.permissions));
}

#[test]
fn a29_a_namespace_that_does_not_exist_answers_like_one_that_may_not_be_seen() {
    let world = world();
    world.create("a29", "keyvalue", &[("web", "write")]);
    let mut stranger = world.service("stranger");
    let of = |client: &mut Client, name: &str| whole(get(client, name));
    let missing = of(&mut stranger, "b29");
    assert_eq!(missing, of(&mut stranger, "a29"));
    assert_eq!(
        missing,
        of(&mut world.service("web"), "a29"),
        "without the permission"
    );
    assert_eq!(missing.0, PERMISSION_DENIED);
    for path in ["Get", "Status", "Delete"] {
        let path = format!("/prism.admin.v1.Namespaces/{path}");
        let ask = |client: &mut Client, name: &str| {
            let request = GetNamespace {
                name: name.to_owned(),
            };
            whole(client.unary::<GotNamespace>(&path, &request))
        };
        assert_eq!(ask(&mut stranger, "a29"), missing, "{path}");
        assert_eq!(ask(&mut stranger, "b29"), missing, "{path}");
    }
    let listed: ListResponse = stranger
        .unary("/prism.admin.v1.Namespaces/List", &ListRequest::default())
        .expect("a list");
    assert!(listed.namespaces.iter().all(|namespace| namespace.name != "a29"));
}

#[test]
fn a31_streams_and_waiting_calls_end_when_the_permission_is_taken_back() {
    const STREAMS: usize = 20;
    let world = world();
    world.create("a31", "pubsub", &[("web", "read")]);
    let (opened, ended) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..STREAMS {
            scope.spawn(|| {
                let mut client = world.service("web");
                let request = SubscribeRequest {
                    namespace: "a31".to_owned(),
                    ..SubscribeRequest::default()
                };
                let mut is_open = false;
                let result = client.server_streaming(
                    "/prism.pubsub.v1.PubSub/Subscribe",
                    &request,
                    |_: SubscribeResponse| {
                        if !std::mem::replace(&mut is_open, true) {
                            opened.fetch_add(1, Ordering::SeqCst);
                        }
                        ControlFlow::Continue(())
                    },
                );
                let (code, message) = refusal(result);
                assert_eq!(code, PERMISSION_DENIED, "{message}");
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut publisher = world.member("shop");
        while opened.load(Ordering::SeqCst) < STREAMS as u32 {
            assert!(Instant::now() < deadline, "the streams do not open");
            let request = PublishRequest {
                namespace: "a31".to_owned(),
                message: Some(Message {
                    payload: b"x".to_vec(),
                    ..Message::default()
                }),
                ..PublishRequest::default()
            };
            let published = publisher.unary::<PublishResponse>("/prism.pubsub.v1.PubSub/Publish", &request);
            published.expect("its team publishes");
            thread::sleep(Duration::from_millis(20));
        }
        world.update("a31", "pubsub", &[]);
        while ended.load(Ordering::SeqCst) < STREAMS as u32 {
            assert!(Instant::now() < deadline, "streams go on");
            thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a32_nothing_is_done_after_the_answer_to_a_revocation() {
    let world = world();
    world.create("a32", "keyvalue", &[]);
    for round in 0..5 {
        world.update("a32", "keyvalue", &[("web", "read, write")]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut client = world.service("web");
                let (mut done, mut after) = (0, 0);
                loop {
                    let is_revoked = stop.load(Ordering::SeqCst);
                    match put(&mut client, "a32") {
                        Ok(_) => {
                            done += 1;
                            after += u32::from(is_revoked);
                        }
                        Err(_) if is_revoked => return (done, after),
                        Err(_) => {}
                    }
                    if after > 0 {
                        return (done, after);
                    }
                }
            });
            thread::sleep(Duration::from_millis(30));
            world.update("a32", "keyvalue", &[]);
            stop.store(true, Ordering::SeqCst);
            let (_, after) = writer.join().expect("a writer");
            assert_eq!(after, 0, "round {round}: a put after the revocation");
        });
    }
}

#[test]
fn a33_roles_of_the_gateway_are_no_permission_for_data() {
    let world = world();
    world.create("a33", "keyvalue", &[]);
    let mut member = world.member("shop");
    put(&mut member, "a33").expect("its team writes");
    for role in ["root", "scraper"] {
        let mut client = world.service(role);
        assert_eq!(refusal(get(&mut client, "a33")).0, PERMISSION_DENIED, "{role}");
        assert_eq!(refusal(put(&mut client, "a33")).0, PERMISSION_DENIED, "{role}");
        assert_eq!(client.page("/metrics").expect("a page").0, 200, "{role}");
        let request = GetNamespace {
            name: "a33".to_owned(),
        };
        let shown: GotNamespace = client
            .unary("/prism.admin.v1.Namespaces/Get", &request)
            .expect("roles see configurations");
        assert_eq!(shown.namespace.expect("one").name, "a33");
    }
    // Only one of them changes them.
    let request = UpdateRequest {
        yaml: file("a33", "keyvalue", &[("scraper", "read")]),
        base_version: 0,
    };
    let update = "/prism.admin.v1.Namespaces/Update";
    let refused = world.service("scraper").unary::<UpdateResponse>(update, &request);
    assert_eq!(refusal(refused).0, PERMISSION_DENIED);
    let done = world.service("root").unary::<UpdateResponse>(update, &request);
    assert!(done.is_ok(), "{done:?}");
}

#[test]
fn a_namespace_belongs_to_its_team_or_else_to_whoever_created_it() {
    let world = world();
    let create = |client: &mut Client, yaml: String| {
        client.unary::<CreateResponse>("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
    };
    let of_shop = file("owned-by-shop", "keyvalue", &[("mallory", "admin")]);
    let refused = create(&mut world.service("mallory"), of_shop);
    assert_eq!(refusal(refused).0, PERMISSION_DENIED, "not a member");
    let free = "namespace: owned-by-me\nclient_api: keyvalue\nneeds: {durability: best-effort}\n".to_owned();
    let mut me = world.service("me");
    create(&mut me, free).expect("whoever is known");
    put(&mut me, "owned-by-me").expect("its creator may do everything");
    assert_eq!(
        refusal(put(&mut world.service("you"), "owned-by-me")).0,
        PERMISSION_DENIED
    );
}
