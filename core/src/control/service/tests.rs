//! The calls of Namespaces on a catalog in memory, and the sentences of their refusals.

use prism_codec::proto::google::rpc::ErrorInfo;

use super::*;
use crate::config::{EmbeddedStore, ServeOptions};
use crate::namespace::problem::PROBLEM_TYPE_URL;

/// A gateway with this embedded store, and why its log cannot keep `strong`.
fn context(embedded: EmbeddedStore, log_refusal: Option<&str>) -> ServiceContext {
    let options = ServeOptions {
        embedded,
        ..ServeOptions::default()
    };
    ServiceContext {
        file: FileLimits::default(),
        namespaces_max: 1_000,
        stores: Stores::of(&options, log_refusal),
    }
}

fn sqlite() -> ServiceContext {
    context(EmbeddedStore::Sqlite, None)
}

const GOOD: &str =
    "namespace: user-sessions\nteam: web\nclient_api: keyvalue\nneeds: {durability: best-effort}\n";

fn create_yaml(catalog: &mut Catalog, yaml: &str) -> Result<CatalogEntry, Refusal> {
    create(
        &sqlite(),
        catalog,
        UNIX_EPOCH + Duration::from_millis(1_500),
        &admin::CreateRequest { yaml: yaml.into() },
    )
}

fn reason(refusal: &Status) -> String {
    assert_eq!(
        refusal.details[0].type_url,
        "type.googleapis.com/google.rpc.ErrorInfo"
    );
    let info = ErrorInfo::decode(&refusal.details[0].value[..]).unwrap();
    assert_eq!(info.domain, "prism");
    info.reason
}

#[test]
fn the_default_limits_are_what_the_default_gateway_takes() {
    let serve = crate::config::ServeLimits::default();
    let record = crate::log::record_bytes_max(&crate::config::LogLimits::default()) as u64;
    let derived = FileLimits::of_gateway(
        serve.namespace_write_rps_max,
        serve.message_bytes_max as u64,
        record,
    );
    assert_eq!(derived, FileLimits::default());
}

fn get_name(catalog: &Catalog, name: &str) -> Result<admin::Namespace, Refusal> {
    let request = admin::GetRequest { name: name.into() };
    get(catalog, &request, |_| "no room".into()).map(|response| response.namespace.unwrap())
}

#[test]
fn create_get_delete() {
    let mut catalog = Catalog::in_memory().unwrap();
    let created = create_yaml(&mut catalog, GOOD).unwrap();
    assert_eq!((created.id, &*created.name), (1, "user-sessions"));
    let namespace = get_name(&catalog, "user-sessions").unwrap();
    assert_eq!(namespace.backend, "SQLite table \"user-sessions\"");
    assert_eq!((&*namespace.yaml, namespace.version), (GOOD, 1));
    assert_eq!(
        (&*namespace.state, &*namespace.trouble),
        ("provisioning", "no room")
    );
    assert_eq!(
        namespace.create_time,
        Some(prost_types::Timestamp {
            seconds: 1,
            nanos: 500_000_000
        })
    );
    let refusal = create_yaml(&mut catalog, GOOD).unwrap_err();
    assert_eq!(
        (refusal.code, &*refusal.message),
        (
            6,
            "Namespace \"user-sessions\" already exists and is being prepared"
        )
    );
    catalog.activate(&[1]).unwrap();
    let refusal = create_yaml(&mut catalog, GOOD).unwrap_err();
    assert_eq!(
        (refusal.code, &*refusal.message),
        (6, "Namespace \"user-sessions\" already exists")
    );
    assert_eq!(reason(&refusal), "NAMESPACE_EXISTS");

    let request = admin::DeleteRequest {
        name: "user-sessions".into(),
    };
    let before = delete(&mut catalog, &request).unwrap();
    assert_eq!((before.id, before.state), (1, NamespaceState::Active));
    assert_eq!(get_name(&catalog, "user-sessions").unwrap().state, "deleting");
    let again = delete(&mut catalog, &request).unwrap();
    assert_eq!(
        again.state,
        NamespaceState::Deleting,
        "a repeat waits for the first"
    );
    let refusal = create_yaml(&mut catalog, GOOD).unwrap_err();
    assert_eq!((refusal.code, reason(&refusal)), (9, "NAMESPACE_DELETING".into()));
    assert!(
        refusal.message.contains("nothing was done"),
        "{}",
        refusal.message
    );

    catalog.remove(&[1]).unwrap();
    let refusal = get_name(&catalog, "user-sessions").unwrap_err();
    assert_eq!(
        (refusal.code, reason(&refusal)),
        (5, "NAMESPACE_NOT_FOUND".into())
    );
    let refusal = delete(&mut catalog, &admin::DeleteRequest { name: "No!".into() }).unwrap_err();
    assert_eq!((refusal.code, reason(&refusal)), (3, "NAMESPACE_INVALID".into()));
}

fn batch(catalog: &mut Catalog, yamls: &[String]) -> Result<Batch, Refusal> {
    let request = admin::CreateBatchRequest {
        yamls: yamls.to_vec(),
    };
    create_batch(&sqlite(), catalog, UNIX_EPOCH, &request)
}

/// The reasons of a batch of which nothing was done, by file.
fn reasons(catalog: &mut Catalog, yamls: &[String]) -> Vec<String> {
    let before = catalog.entries().unwrap();
    let Batch::Refused(response) = batch(catalog, yamls).unwrap() else {
        panic!("nothing is wrong with these files");
    };
    assert_eq!(catalog.entries().unwrap(), before, "nothing was done");
    assert!(response.encoded_len() < 3 << 20, "{}", response.encoded_len());
    let statuses = response
        .results
        .iter()
        .map(|result| result.status.as_ref().unwrap());
    statuses.map(reason).collect()
}

fn named(name: &str) -> String {
    GOOD.replace("user-sessions", name)
}

#[test]
fn a_batch_says_of_each_file_why_nothing_was_created() {
    let mut catalog = Catalog::in_memory().unwrap();
    create_yaml(&mut catalog, &named("taken")).unwrap();
    let bad = "namespace: [".to_owned();
    assert_eq!(
        reasons(&mut catalog, &[named("a"), bad, named("taken"), named("a")]),
        [
            "BATCH_REFUSED",
            "NAMESPACE_INVALID",
            "NAMESPACE_EXISTS",
            "NAMESPACE_INVALID"
        ]
    );
    assert_eq!(
        reasons(&mut catalog, &[named("taken"), named("a")]),
        ["NAMESPACE_EXISTS", "BATCH_REFUSED"]
    );
    let Batch::Recorded(entries) = batch(&mut catalog, &[named("b"), named("a")]).unwrap() else {
        panic!("nothing is wrong with these files");
    };
    let recorded: Vec<_> = entries.iter().map(|entry| (entry.id, &*entry.name)).collect();
    assert_eq!(recorded, [(2, "b"), (3, "a")], "in the order of the request");
}

#[test]
fn a_batch_is_bounded_and_so_is_its_answer() {
    let mut catalog = Catalog::in_memory().unwrap();
    for (yamls, why) in [
        (vec![], "0 files"),
        (vec![String::new(); 1_001], "1001 files"),
        (vec![" ".repeat(1 << 20); 5], "5242880 bytes"),
    ] {
        let refusal = batch(&mut catalog, &yamls).unwrap_err();
        assert_eq!((refusal.code, reason(&refusal)), (3, "BATCH_INVALID".into()));
        assert!(
            refusal.message.contains(why) && refusal.message.contains("allowed: "),
            "{}",
            refusal.message
        );
    }
    let keys: String = (0..300).map(|index| format!("key{index}: 1\n")).collect();
    let all = reasons(&mut catalog, &vec![keys; 1_000]);
    assert!(all.iter().all(|reason| reason == "NAMESPACE_INVALID"));
    let full = ServiceContext {
        namespaces_max: 2,
        ..sqlite()
    };
    let yamls = ["a", "b", "c"].map(named).to_vec();
    let request = admin::CreateBatchRequest { yamls };
    let refusal = create_batch(&full, &mut catalog, UNIX_EPOCH, &request).unwrap_err();
    assert_eq!((refusal.code, reason(&refusal)), (8, "NAMESPACES_FULL".into()));
    assert!(
        refusal.message.contains("none was created"),
        "{}",
        refusal.message
    );
}

#[test]
fn an_update_changes_what_may_change() {
    let mut catalog = Catalog::in_memory().unwrap();
    let id = create_yaml(&mut catalog, GOOD).unwrap().id;
    let update_to = |catalog: &mut Catalog, yaml: &str, base_version| {
        let request = admin::UpdateRequest {
            yaml: yaml.into(),
            base_version,
        };
        update(&sqlite(), catalog, &request)
    };
    let new = GOOD.replace("team: web", "team: shop");
    let refusal = update_to(&mut catalog, &new, 0).unwrap_err();
    assert_eq!(
        (refusal.code, reason(&refusal)),
        (14, "NAMESPACE_NOT_READY".into())
    );
    catalog.activate(&[id]).unwrap();

    for (yaml, code, why) in [
        (named("other"), 5, "NAMESPACE_NOT_FOUND"),
        (GOOD.replace("best-effort", "strong"), 9, "IMMUTABLE_FIELD"),
        (GOOD.replace("keyvalue", "keyvaleu"), 3, "NAMESPACE_INVALID"),
    ] {
        let refusal = update_to(&mut catalog, &yaml, 0).unwrap_err();
        assert_eq!((refusal.code, reason(&refusal)), (code, why.to_owned()), "{yaml}");
    }
    let refusal = update_to(&mut catalog, &new, 7).unwrap_err();
    assert_eq!((refusal.code, reason(&refusal)), (10, "VERSION_CHANGED".into()));
    assert!(
        refusal.message.contains("nothing was done"),
        "{}",
        refusal.message
    );

    let entry = update_to(&mut catalog, &new, 1).unwrap();
    assert_eq!((&*entry.team, entry.version), ("shop", 2));
    assert_eq!(get_name(&catalog, "user-sessions").unwrap().state, "updating");
    let refusal = update_to(&mut catalog, &new, 0).unwrap_err();
    assert_eq!(
        (refusal.code, reason(&refusal)),
        (14, "NAMESPACE_NOT_READY".into())
    );
    assert!(refusal.message.contains("is updating"), "{}", refusal.message);
}

#[test]
fn a_file_over_the_limit_is_refused_with_the_literal_sentence() {
    let mut catalog = Catalog::in_memory().unwrap();
    let yaml = GOOD.replace("{", "{write_rps: 100000, ");
    let refusal = create_yaml(&mut catalog, &yaml).unwrap_err();
    assert_eq!(
        refusal.message,
        "Requested write_rps (100000) exceeds limit (50000)"
    );
    let problem = admin::Problem::decode(&refusal.details[2].value[..]).unwrap();
    assert_eq!((&*problem.field, problem.line), ("needs.write_rps", 4));
    assert_eq!(problem.suggestion, "Contact platform team for capacity increase");
    assert!(catalog.entries().unwrap().is_empty());
}

#[test]
fn what_does_not_work_yet_is_refused_with_a_sentence() {
    let mut catalog = Catalog::in_memory().unwrap();
    let yaml = "namespace: e\nclient_api: reader\npolicies: {audit_logging: enabled, compliance: pci}\n";
    assert!(
        validate(&sqlite(), &admin::ValidateRequest { yaml: yaml.into() })
            .problems
            .is_empty()
    );
    let refusal = create_yaml(&mut catalog, yaml).unwrap_err();
    assert_eq!(
        (refusal.code, reason(&refusal)),
        (12, "NAMESPACE_UNSUPPORTED".into())
    );
    assert!(
        refusal
            .message
            .contains("client_api reader cannot be created yet"),
        "{}",
        refusal.message
    );
    let advice: Vec<_> = refusal
        .details
        .iter()
        .filter(|any| any.type_url == PROBLEM_TYPE_URL)
        .map(|any| admin::Problem::decode(&any.value[..]).unwrap().suggestion)
        .collect();
    assert_eq!(
        advice[0],
        "this version serves client_api: keyvalue, pubsub and queue"
    );
}

#[test]
fn a_durability_that_cannot_be_kept_is_refused_with_the_reason() {
    let mut catalog = Catalog::in_memory().unwrap();
    let memory = context(EmbeddedStore::Memory, None);
    let tmpfs = context(
        EmbeddedStore::Sqlite,
        Some("durability strong cannot be kept in /tmp: tmpfs is memory"),
    );
    let mut ask = |context: &ServiceContext, durability: &str| {
        let yaml =
            format!("namespace: {durability}\nclient_api: keyvalue\nneeds: {{durability: {durability}}}\n");
        create(context, &mut catalog, UNIX_EPOCH, &admin::CreateRequest { yaml }).map(drop)
    };
    for durability in ["strong", "eventual"] {
        let refusal = ask(&memory, durability).unwrap_err();
        assert_eq!(
            (refusal.code, reason(&refusal)),
            (9, "DURABILITY_IMPOSSIBLE".into())
        );
        assert!(
            refusal.message.contains("start it with --embedded sqlite"),
            "{}",
            refusal.message
        );
    }
    let refusal = ask(&tmpfs, "strong").unwrap_err();
    assert!(refusal.message.contains("tmpfs is memory"), "{}", refusal.message);
    ask(&tmpfs, "eventual").unwrap();
    ask(&sqlite(), "strong").unwrap();
}

#[test]
fn many_problems_fit_into_a_header() {
    let mut catalog = Catalog::in_memory().unwrap();
    let keys: String = (0..500).map(|index| format!("key{index}: 1\n")).collect();
    let refusal = create_yaml(&mut catalog, &keys).unwrap_err();
    assert!(refusal.message.contains("502 problems"), "{}", refusal.message);
    assert!(refusal.encoded_len() < 8_000, "{}", refusal.encoded_len());
    let response = validate(&sqlite(), &admin::ValidateRequest { yaml: keys });
    assert_eq!(response.problems.len(), 502);
}

#[test]
fn list_pages_and_checks_its_arguments() {
    let mut catalog = Catalog::in_memory().unwrap();
    for name in ["c", "a", "b"] {
        create_yaml(&mut catalog, &GOOD.replace("user-sessions", name)).unwrap();
    }
    let mut request = admin::ListRequest {
        page_size: 2,
        page_token: Vec::new(),
    };
    let page = list(&catalog, &request, |_| String::new()).unwrap();
    assert_eq!(
        page.namespaces.iter().map(|n| &*n.name).collect::<Vec<_>>(),
        ["a", "b"]
    );
    request.page_token = page.next_page_token;
    let page = list(&catalog, &request, |_| String::new()).unwrap();
    assert_eq!(
        (
            &*page.namespaces[0].name,
            page.namespaces.len(),
            page.next_page_token
        ),
        ("c", 1, Vec::new())
    );
    let whole = list(
        &catalog,
        &admin::ListRequest {
            page_size: 3,
            page_token: Vec::new(),
        },
        |_| String::new(),
    )
    .unwrap();
    assert!(
        whole.next_page_token.is_empty(),
        "an exactly full page is the last one"
    );
    request.page_size = 1_001;
    assert_eq!(list(&catalog, &request, |_| String::new()).unwrap_err().code, 3);
    let foreign = admin::ListRequest {
        page_size: 0,
        page_token: vec![0xFF],
    };
    assert_eq!(list(&catalog, &foreign, |_| String::new()).unwrap_err().code, 3);
}
