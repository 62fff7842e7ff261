//! The calls of `prism.admin.v1.Namespaces` as plain functions on catalog and request.
//!
//! Promises: no I/O but the catalog's; every refusal is a `google.rpc.Status` with `ErrorInfo` (domain
//! `prism`), and with `BadRequest` and one `prism.admin.v1.Problem` for each problem where a file is at fault.
//! Leaves to others: the wire, and the store: who wires this hands [`Created::config`] to the shards before it
//! acknowledges (and takes the namespace back with [`undo_create`] if a shard refuses), and removes the data of
//! [`Deleted::id`] before it calls [`Catalog::forget`].

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prism_codec::proto::google::rpc::{BadRequest, ErrorInfo, Status, bad_request::FieldViolation};
use prism_codec::proto::prism::admin::v1 as admin;
use prost::Message;

use super::catalog::{Catalog, CatalogEntry, CatalogError, StoreRef};
use super::stores::{OpenStore, Stores};
use crate::namespace::file::{self, FileLimits};
use crate::namespace::model::{NamespaceConfig, check_name, unsupported};
use crate::namespace::problem::{PROBLEM_TYPE_URL, Problem, descriptions};
use crate::plan::{Excuse, Rule};

/// A refusal. Boxed, since it is large and rare.
pub(crate) type Refusal = Box<Status>;

/// What the calls need to know of the gateway.
#[derive(Clone, Debug)]
pub(crate) struct ServiceContext {
    /// What a file may ask for.
    pub(crate) file: FileLimits,
    /// Most namespaces in the catalog.
    pub(crate) namespaces_max: usize,
    /// The stores that a new namespace may get.
    pub(crate) stores: Stores,
}

/// A namespace that is in the catalog and that the shards do not know yet.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    /// Its id, for the shards and the store.
    pub(crate) id: u32,
    /// Its checked configuration.
    pub(crate) config: NamespaceConfig,
    /// The store that it gets.
    pub(crate) store: OpenStore,
    /// The reply, to be sent when the shards know it.
    pub(crate) response: admin::CreateResponse,
}

/// A namespace that is out of the catalog and whose data is still there.
#[derive(Clone, Debug)]
pub(crate) struct Deleted {
    /// Its id, for the shards and the store.
    pub(crate) id: u32,
    /// Its name.
    pub(crate) name: String,
    /// The store that has its data.
    pub(crate) store: StoreRef,
}

/// `Validate`: every problem of a file. Never refuses: a file that is too long is a problem, too.
pub(crate) fn validate(
    context: &ServiceContext,
    request: &admin::ValidateRequest,
) -> admin::ValidateResponse {
    let problems = file::parse(&request.yaml, &context.file)
        .err()
        .unwrap_or_default();
    admin::ValidateResponse {
        problems: problems.into_iter().map(problem_message).collect(),
    }
}

/// `Create`: checks the file and puts the namespace into the catalog.
///
/// # Errors
/// INVALID_ARGUMENT `NAMESPACE_INVALID`, UNIMPLEMENTED `NAMESPACE_UNSUPPORTED`, FAILED_PRECONDITION
/// `DURABILITY_IMPOSSIBLE` or `NO_STORE`, ALREADY_EXISTS `NAMESPACE_EXISTS`, RESOURCE_EXHAUSTED `NAMESPACES_FULL`, UNAVAILABLE `CATALOG_UNAVAILABLE`.
pub(crate) fn create(
    context: &ServiceContext,
    catalog: &mut Catalog,
    now: SystemTime,
    request: &admin::CreateRequest,
) -> Result<Created, Refusal> {
    let config = file::parse(&request.yaml, &context.file).map_err(|problems| invalid(&problems))?;
    let missing = unsupported(&config);
    if !missing.is_empty() {
        return Err(not_yet(&config, &missing));
    }
    let store = context
        .stores
        .pick(&config)
        .map_err(|excuses| no_store(&config, &excuses))?;
    let entry = CatalogEntry {
        id: 0,
        name: config.name.clone(),
        team: config.team.clone(),
        client_api: config.client_api.to_string(),
        durability: config.durability().to_string(),
        backend: store.describe(&config.name),
        store: StoreRef {
            name: store.candidate.name.clone(),
            kind: store.candidate.kind.name().to_owned(),
        },
        create_time_ns: unix_nanos(now),
        yaml: request.yaml.clone(),
    };
    let entry = catalog
        .create(&entry, context.namespaces_max)
        .map_err(|error| catalog_refusal(&error))?;
    let id = entry.id;
    Ok(Created {
        id,
        config,
        store: store.clone(),
        response: admin::CreateResponse {
            namespace: Some(namespace_message(entry)),
        },
    })
}

/// Takes back a namespace that [`create`] put into the catalog and that a shard or the store refused.
///
/// # Errors
/// UNAVAILABLE `CATALOG_UNAVAILABLE`.
pub(crate) fn undo_create(catalog: &mut Catalog, created: &Created) -> Result<(), Refusal> {
    let undo = catalog
        .delete(&created.config.name)
        .and_then(|_| catalog.forget(created.id));
    undo.map_err(|error| catalog_refusal(&error))
}

/// `Get`.
///
/// # Errors
/// NOT_FOUND `NAMESPACE_NOT_FOUND`, INVALID_ARGUMENT `NAMESPACE_INVALID`, UNAVAILABLE `CATALOG_UNAVAILABLE`.
pub(crate) fn get(catalog: &Catalog, request: &admin::GetRequest) -> Result<admin::GetResponse, Refusal> {
    check_request_name(&request.name)?;
    match catalog.entry(&request.name) {
        Ok(Some(entry)) => Ok(admin::GetResponse {
            namespace: Some(namespace_message(entry)),
        }),
        Ok(None) => Err(not_found(&request.name)),
        Err(error) => Err(catalog_refusal(&error)),
    }
}

/// `List`, in the order of the names. The page token is the last name of the page before.
///
/// # Errors
/// INVALID_ARGUMENT `PAGE_INVALID` for a size above 1,000 or a foreign token, UNAVAILABLE
/// `CATALOG_UNAVAILABLE`.
pub(crate) fn list(catalog: &Catalog, request: &admin::ListRequest) -> Result<admin::ListResponse, Refusal> {
    let size = match request.page_size {
        0 => PAGE_SIZE_DEFAULT,
        size @ 1..=PAGE_SIZE_MAX => size,
        size => {
            let problem = Problem::new(
                "page_size",
                0,
                format!("page_size is {size}; allowed: 1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}"),
            );
            return Err(bad_request(
                "PAGE_INVALID",
                &problem.description,
                std::slice::from_ref(&problem),
            ));
        }
    };
    let after = std::str::from_utf8(&request.page_token)
        .ok()
        .filter(|name| name.is_empty() || check_name(name).is_ok());
    let Some(after) = after else {
        let problem = Problem::new("page_token", 0, "page_token is not one that List gave out");
        return Err(bad_request(
            "PAGE_INVALID",
            &problem.description,
            std::slice::from_ref(&problem),
        ));
    };
    // One more than asked for tells whether there is another page.
    let mut entries = catalog
        .page(after, size + 1)
        .map_err(|error| catalog_refusal(&error))?;
    let more = entries.len() > size as usize;
    entries.truncate(size as usize);
    let next_page_token = match entries.last() {
        Some(last) if more => last.name.clone().into_bytes(),
        _ => Vec::new(),
    };
    Ok(admin::ListResponse {
        namespaces: entries.into_iter().map(namespace_message).collect(),
        next_page_token,
    })
}

/// `Delete`: takes the namespace out of the catalog. Its data has to be removed next.
///
/// # Errors
/// NOT_FOUND `NAMESPACE_NOT_FOUND`, INVALID_ARGUMENT `NAMESPACE_INVALID`, UNAVAILABLE `CATALOG_UNAVAILABLE`.
pub(crate) fn delete(catalog: &mut Catalog, request: &admin::DeleteRequest) -> Result<Deleted, Refusal> {
    check_request_name(&request.name)?;
    match catalog.delete(&request.name) {
        Ok(Some(entry)) => Ok(Deleted {
            id: entry.id,
            name: entry.name,
            store: entry.store,
        }),
        Ok(None) => Err(not_found(&request.name)),
        Err(error) => Err(catalog_refusal(&error)),
    }
}

/// Page of a `List` that does not say how many.
pub(crate) const PAGE_SIZE_DEFAULT: u32 = 100;
/// Largest page of a `List`.
pub(crate) const PAGE_SIZE_MAX: u32 = 1_000;
/// Numbers of the gRPC codes that these calls answer with.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const ALREADY_EXISTS: i32 = 6;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAVAILABLE: i32 = 14;
}

/// The refusal of a file with problems. With one problem its sentence is the message, word for word.
fn invalid(problems: &[Problem]) -> Refusal {
    let message = match problems {
        [only] => only.description.clone(),
        _ => {
            let first = problems.first().map_or(String::new(), ToString::to_string);
            format!(
                "the namespace file has {} problems; the first: {first}",
                problems.len()
            )
        }
    };
    let count = problems.len().to_string();
    let mut refusal = refusal(
        code::INVALID_ARGUMENT,
        "NAMESPACE_INVALID",
        &message,
        // The details may hold fewer.
        &[("problems", &count)],
    );
    attach_problems(&mut refusal, problems);
    refusal
}

fn not_yet(config: &NamespaceConfig, missing: &[Problem]) -> Refusal {
    // What to do instead is in the details, once.
    let message = format!(
        "namespace \"{}\" is valid but cannot be created: {}",
        config.name,
        descriptions(missing)
    );
    let mut refusal = refusal(
        code::UNIMPLEMENTED,
        "NAMESPACE_UNSUPPORTED",
        &message,
        &[("namespace", &config.name)],
    );
    attach_problems(&mut refusal, missing);
    refusal
}

/// What no store can keep is refused when it is asked for, not broken later. One excuse for each store.
fn no_store(config: &NamespaceConfig, excuses: &[Excuse]) -> Refusal {
    let all = |rule: Rule| excuses.iter().all(|excuse| excuse.rule == rule);
    let (code, reason) = if all(Rule::NotThisApi) {
        (code::UNIMPLEMENTED, "NAMESPACE_UNSUPPORTED")
    } else if all(Rule::Durability) {
        (code::FAILED_PRECONDITION, "DURABILITY_IMPOSSIBLE")
    } else {
        (code::FAILED_PRECONDITION, "NO_STORE")
    };
    let each = excuses.iter().take(EXCUSES_SENT_MAX);
    let mut sentences: Vec<_> = each
        .clone()
        .map(|excuse| format!("{}: {}", excuse.title, excuse.sentence))
        .collect();
    if excuses.len() > EXCUSES_SENT_MAX {
        sentences.push(format!("and {} more", excuses.len() - EXCUSES_SENT_MAX));
    }
    let note = match config.needs.durability {
        None if reason == "DURABILITY_IMPOSSIBLE" => " (durability strong holds where none is declared)",
        _ => "",
    };
    let advice = match reason {
        "DURABILITY_IMPOSSIBLE" => {
            "; write durability: best-effort, or give the gateway a store that keeps it: start it with --embedded sqlite, on a \
             file system that keeps what is synced"
        }
        _ => "",
    };
    let message = format!(
        "namespace \"{}\" cannot be created, since no store can keep what it needs{note}: {}{advice}",
        config.name,
        sentences.join("; ")
    );
    let durability = config.durability();
    let mut metadata = vec![
        ("namespace", config.name.as_str()),
        ("client_api", config.client_api.as_str()),
        ("durability", durability.as_str()),
    ];
    // A program finds the rule that each store breaks under its name.
    let keys: Vec<_> = each
        .clone()
        .map(|excuse| format!("store-{}", excuse.store))
        .collect();
    let rules = each.map(|excuse| excuse.rule.code());
    metadata.extend(keys.iter().map(String::as_str).zip(rules));
    refusal(code, reason, &message, &metadata)
}

/// Most excuses that one refusal carries: all of it travels in one header.
const EXCUSES_SENT_MAX: usize = 10;

fn check_request_name(name: &str) -> Result<(), Refusal> {
    check_name(name).map_err(|problem| {
        let problem = Problem {
            field: "name".to_owned(),
            ..problem
        };
        bad_request(
            "NAMESPACE_INVALID",
            &problem.description,
            std::slice::from_ref(&problem),
        )
    })
}

fn not_found(name: &str) -> Refusal {
    let message = format!("Namespace \"{name}\" does not exist");
    refusal(
        code::NOT_FOUND,
        "NAMESPACE_NOT_FOUND",
        &message,
        &[("namespace", name)],
    )
}

/// The one place where the catalog's errors become gRPC status.
fn catalog_refusal(error: &CatalogError) -> Refusal {
    let (code, reason) = match error {
        CatalogError::AlreadyExists { name } => {
            return refusal(
                code::ALREADY_EXISTS,
                "NAMESPACE_EXISTS",
                &error.to_string(),
                &[("namespace", name)],
            );
        }
        CatalogError::Full { .. } => (code::RESOURCE_EXHAUSTED, "NAMESPACES_FULL"),
        _ => (code::UNAVAILABLE, "CATALOG_UNAVAILABLE"),
    };
    refusal(code, reason, &error.to_string(), &[])
}

fn refusal(code: i32, reason: &str, message: &str, metadata: &[(&str, &str)]) -> Refusal {
    let metadata: HashMap<_, _> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let info = ErrorInfo {
        reason: reason.to_owned(),
        domain: "prism".to_owned(),
        metadata,
    };
    let details = vec![any("type.googleapis.com/google.rpc.ErrorInfo", &info)];
    Box::new(Status {
        code,
        message: message.to_owned(),
        details,
    })
}

fn bad_request(reason: &str, message: &str, problems: &[Problem]) -> Refusal {
    let mut refusal = refusal(code::INVALID_ARGUMENT, reason, message, &[]);
    attach_problems(&mut refusal, problems);
    refusal
}

fn attach_problems(refusal: &mut Status, problems: &[Problem]) {
    // All details travel in one header; a file with hundreds of problems must not burst the header list.
    let problems = &problems[..problems.len().min(PROBLEMS_SENT_MAX)];
    let violation = |problem: &Problem| FieldViolation {
        field: problem.field.clone(),
        description: problem.description.clone(),
    };
    let violations = BadRequest {
        field_violations: problems.iter().map(violation).collect(),
    };
    refusal
        .details
        .push(any("type.googleapis.com/google.rpc.BadRequest", &violations));
    let messages = problems.iter().cloned().map(problem_message);
    refusal
        .details
        .extend(messages.map(|problem| any(PROBLEM_TYPE_URL, &problem)));
}

/// Most problems that one refusal carries; `Validate` answers with all.
const PROBLEMS_SENT_MAX: usize = 10;

fn any(type_url: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

fn problem_message(problem: Problem) -> admin::Problem {
    let Problem {
        field,
        description,
        suggestion,
        line,
    } = problem;
    admin::Problem {
        field,
        description,
        suggestion,
        line,
    }
}

fn namespace_message(entry: CatalogEntry) -> admin::Namespace {
    admin::Namespace {
        name: entry.name,
        team: entry.team,
        client_api: entry.client_api,
        durability: entry.durability,
        backend: entry.backend,
        create_time: Some(prost_types::Timestamp {
            seconds: entry.create_time_ns.div_euclid(1_000_000_000),
            nanos: i32::try_from(entry.create_time_ns.rem_euclid(1_000_000_000)).unwrap_or(0),
        }),
        yaml: entry.yaml,
    }
}

fn unix_nanos(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EmbeddedStore, ServeOptions};

    /// A gateway with this embedded store, and why its log cannot keep `strong`.
    fn context(embedded: EmbeddedStore, log_refusal: Option<&str>) -> ServiceContext {
        let options = ServeOptions {
            embedded,
            ..ServeOptions::default()
        };
        ServiceContext {
            file: FileLimits {
                write_rps_max: 50_000,
                value_bytes_max: 16 << 20,
                logged_value_bytes_max: 16 << 20,
            },
            namespaces_max: 1_000,
            stores: Stores::of(&options, log_refusal),
        }
    }

    fn sqlite() -> ServiceContext {
        context(EmbeddedStore::Sqlite, None)
    }
    const GOOD: &str =
        "namespace: user-sessions\nteam: web\nclient_api: keyvalue\nneeds: {durability: best-effort}\n";

    fn create_yaml(catalog: &mut Catalog, yaml: &str) -> Result<Created, Refusal> {
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

    #[test]
    fn create_get_delete() {
        let mut catalog = Catalog::in_memory().unwrap();
        let created = create_yaml(&mut catalog, GOOD).unwrap();
        let namespace = created.response.namespace.unwrap();
        assert_eq!(created.id, 1);
        assert_eq!(created.config.name, "user-sessions");
        assert_eq!(namespace.backend, "SQLite table \"user-sessions\"");
        assert_eq!(namespace.yaml, GOOD);
        assert_eq!(
            namespace.create_time,
            Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 500_000_000
            })
        );

        let request = admin::GetRequest {
            name: "user-sessions".into(),
        };
        assert_eq!(get(&catalog, &request).unwrap().namespace, Some(namespace));
        let refusal = create_yaml(&mut catalog, GOOD).unwrap_err();
        assert_eq!(
            (refusal.code, &*refusal.message),
            (6, "Namespace \"user-sessions\" already exists")
        );
        assert_eq!(reason(&refusal), "NAMESPACE_EXISTS");

        let deleted = delete(
            &mut catalog,
            &admin::DeleteRequest {
                name: "user-sessions".into(),
            },
        )
        .unwrap();
        assert_eq!(deleted.id, 1);
        let refusal = get(&catalog, &request).unwrap_err();
        assert_eq!(
            (refusal.code, reason(&refusal)),
            (5, "NAMESPACE_NOT_FOUND".into())
        );
        let refusal = delete(&mut catalog, &admin::DeleteRequest { name: "No!".into() }).unwrap_err();
        assert_eq!((refusal.code, reason(&refusal)), (3, "NAMESPACE_INVALID".into()));
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
        let yaml = "namespace: e\nclient_api: pubsub\npolicies: {audit_logging: enabled, compliance: pci}\n";
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
                .contains("client_api pubsub cannot be created yet"),
            "{}",
            refusal.message
        );
        let advice: Vec<_> = refusal
            .details
            .iter()
            .filter(|any| any.type_url == PROBLEM_TYPE_URL)
            .map(|any| admin::Problem::decode(&any.value[..]).unwrap().suggestion)
            .collect();
        assert_eq!(advice[0], "this version serves client_api: keyvalue");
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
            let yaml = format!(
                "namespace: {durability}\nclient_api: keyvalue\nneeds: {{durability: {durability}}}\n"
            );
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
    fn a_create_that_the_shards_refuse_leaves_nothing() {
        let mut catalog = Catalog::in_memory().unwrap();
        let created = create_yaml(&mut catalog, GOOD).unwrap();
        undo_create(&mut catalog, &created).unwrap();
        assert!(catalog.entries().unwrap().is_empty() && catalog.dropped().unwrap().is_empty());
        assert_eq!(create_yaml(&mut catalog, GOOD).unwrap().id, 2);
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
        let page = list(&catalog, &request).unwrap();
        assert_eq!(
            page.namespaces.iter().map(|n| &*n.name).collect::<Vec<_>>(),
            ["a", "b"]
        );
        request.page_token = page.next_page_token;
        let page = list(&catalog, &request).unwrap();
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
        )
        .unwrap();
        assert!(
            whole.next_page_token.is_empty(),
            "an exactly full page is the last one"
        );
        request.page_size = 1_001;
        assert_eq!(list(&catalog, &request).unwrap_err().code, 3);
        let foreign = admin::ListRequest {
            page_size: 0,
            page_token: vec![0xFF],
        };
        assert_eq!(list(&catalog, &foreign).unwrap_err().code, 3);
    }
}
